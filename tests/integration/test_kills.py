"""Runs that are killed, interrupted and started again: the campaigns of `make soak`, for less long."""

import pytest
from soak import kills, requeues, saves
from soak.record import Case

KINDS = list(kills.KINDS)


def test_who_is_killed_while_it_writes_leaves_what_it_had_written(tmp_path):
    assert saves.run(saves.cases(20)[0], tmp_path) == (20, [])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]])
def test_a_run_that_is_killed_again_and_again_ends_as_the_undisturbed_one(kind, tmp_path):
    assert kills.run(Case("kills", f"0 {kind}"), tmp_path).failures == []


@pytest.mark.slow
def test_two_processes_that_are_killed_and_interrupted_end_as_the_undisturbed_ones(tmp_path):
    assert kills.run(Case("ranks", f"0 {KINDS[-1]}"), tmp_path, blows=2).failures == []


@pytest.mark.slow
def test_a_job_that_is_started_again_and_again_goes_on_where_it_was_saved(tmp_path):
    assert requeues.run(Case("requeues", "0"), tmp_path, requeues=1).failures == []
