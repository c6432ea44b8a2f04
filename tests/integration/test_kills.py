"""Runs that are killed, interrupted and requeued: short versions of the campaigns of `make soak`."""

import pytest
from soak import fused, fused_writes, kills, requeues, saves
from soak.record import Case, CaseResult

from losslab.training.config import compose
from losslab.training.fused import members

KINDS = list(kills.KINDS)


def test_process_killed_while_writing_leaves_a_valid_checkpoint(tmp_path):
    assert saves.run(saves.cases(20)[0], tmp_path) == CaseResult(20, [])


def test_fused_group_killed_repeatedly_ends_as_undisturbed(tmp_path):
    assert fused_writes.run(Case("fused_writes", "0 linear"), tmp_path, kills=2) == CaseResult(2, [])


def test_group_that_continues_keeps_its_parts_although_more_memory_is_available(tmp_path, monkeypatch):
    group, whole = tmp_path / "group", tmp_path / "whole"
    common = ("trainer=cpu", "trainer.max_epochs=4", "callbacks.checkpoints.every_seconds=0", "logger=none")
    configs = [compose([*common, f"seed={seed}"], str(group / str(seed))) for seed in range(2)]
    monkeypatch.setattr(members, "bytes_of_member", lambda *_: 1)
    monkeypatch.setattr(members, "available_memory", lambda: 2)
    operations = fused_writes.train(group, configs)
    assert sorted(path.name for path in (group / "fused" / "0").glob("part*")) == ["part0", "part1", "parts.json"]
    group.rename(whole)
    assert fused_writes.train(group, configs, operations * 3 // 4) is None
    assert [(group / str(seed) / "metrics.json").exists() for seed in range(2)] == [True, False]
    monkeypatch.setattr(members, "available_memory", lambda: 1000)
    assert fused_writes.train(group, configs) < operations / 2
    assert fused.check_outcomes(group, whole) == []


@pytest.mark.slow
def test_fused_sweep_killed_and_interrupted_ends_as_undisturbed(tmp_path):
    assert fused.run(Case("fused", "1 mlp"), tmp_path, faults=2) == CaseResult(2, [])


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
