"""Runs that are killed, interrupted and requeued: short versions of the campaigns of `make soak`."""

import pytest
from soak import kills, requeues, saves
from soak.record import Case

KINDS = list(kills.KINDS)


def test_process_killed_while_writing_leaves_a_valid_checkpoint(tmp_path):
    assert saves.run(saves.cases(20)[0], tmp_path) == (20, [])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]])
def test_run_killed_repeatedly_ends_as_undisturbed(kind, tmp_path):
    assert kills.run(Case("kills", f"0 {kind}"), tmp_path).failures == []


@pytest.mark.slow
def test_two_ranks_killed_and_interrupted_end_as_undisturbed(tmp_path):
    assert kills.run(Case("ranks", f"0 {KINDS[-1]}"), tmp_path, faults=2).failures == []


@pytest.mark.slow
def test_requeued_slurm_job_resumes_where_it_was_saved(tmp_path):
    assert requeues.run(Case("requeues", "0"), tmp_path, requeues=1).failures == []
