"""Processes that are killed while they write a checkpoint leave one that can be read."""

import math
import os
import random
import shutil
import signal
import time
from pathlib import Path

import torch

from losslab.runs import RunFolder, resume_checkpoint
from losslab.training.callbacks.checkpoint import BestAndLastCheckpoint
from soak.record import Case, CaseResult

SIZE = 1_000_000
"""Numbers in a checkpoint."""


def cases(count: int) -> list[Case]:
    """Twenty kills in each case."""
    return [Case("saves", str(number)) for number in range(math.ceil(count / 20))]


def run(case: Case, folder: Path, kills: int = 20) -> CaseResult:
    """Kill writers while they write, and check that the newest complete checkpoint can be resumed from."""
    rng = random.Random(repr(case))  # noqa: S311
    failures = []
    run_dir = folder / "saves" / case.name
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir(parents=True)
    for _ in range(kills):
        written = _write_until_killed(run_dir, rng.uniform(0, 0.1))
        newest = resume_checkpoint.find_resume_point(RunFolder(run_dir), tidy=True)
        if newest is None or newest.step < written:
            failures.append(f"step {written} was written, step {newest and newest.step} would be resumed")
    shutil.rmtree(run_dir)
    return CaseResult(kills, failures)


def _write_until_killed(run_dir: Path, seconds: float) -> int:
    """Kill a process that writes one checkpoint after another → the last step that it wrote completely."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        _write(run_dir, writes)
    os.close(writes)
    first = os.read(reads, 8)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reads, "rb") as rest:
        steps = first + rest.read()
    return int.from_bytes(steps[-8:], "little")


def _write(run_dir: Path, writes: int) -> None:
    checkpoints = BestAndLastCheckpoint(str(run_dir))
    learner = {"sums": torch.zeros(1, 1, 2), "values": {}, "fresh": [], "loader": {}}
    counts = {"epoch_progress": {}, "epoch_loop.batch_progress": {}, "epoch_loop.state_dict": {}}
    whole = {"epoch": 0, "learner": learner, "loops": {"fit_loop": counts}, "optimizer_states": [{}]}
    before = resume_checkpoint.find_resume_point(RunFolder(run_dir))
    for step in range(0 if before is None else before.step + 1, 1_000_000):
        state = whole | {"global_step": step, "state_dict": {"numbers": torch.rand(SIZE)}}
        if checkpoints._write(state, checkpoints.folder.last):
            os.write(writes, step.to_bytes(8, "little"))
