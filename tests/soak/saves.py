"""Processes that are killed while they write a checkpoint: what they had written before can be read."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import torch

from losslab.runs import RunFolder, checkpoint
from losslab.training.callbacks.checkpoint import BestAndLastCheckpoint
from soak.record import Case, Found

SIZE = 1_000_000
"""Numbers in a checkpoint."""


def cases(count: int) -> list[Case]:
    """Twenty kills in each."""
    return [Case("saves", str(number)) for number in range(count // 20)]


def run(case: Case, folder: Path, kills: int = 20) -> Found:
    """Kill so many writers, each in the midst of writing → whether all that was written before can be gone on from."""
    moments = random.Random(repr(case))  # noqa: S311
    failures = []
    place = folder / "saves" / case.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for _ in range(kills):
        written = _killed(place, moments.uniform(0, 0.1))
        found = checkpoint.find_resume_point(RunFolder(place), tidy=True)
        if found is None or found.step < written:
            failures.append(f"step {written} had been written, {found and found.step} was found")
    shutil.rmtree(place)
    return Found(kills, failures)


def _killed(place: Path, seconds: float) -> int:
    """Have a process write one state after another, and kill it within the second → the last that it wrote."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        _write(place, writes)
    os.close(writes)
    first = os.read(reads, 8)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reads, "rb") as rest:
        said = first + rest.read()
    return int.from_bytes(said[-8:], "little")


def _write(place: Path, writes: int) -> None:
    checkpoints = BestAndLastCheckpoint(str(place))
    learner = {"sums": torch.zeros(1, 1, 2), "values": {}, "fresh": [], "loader": {}}
    counts = {"epoch_progress": {}, "epoch_loop.batch_progress": {}, "epoch_loop.state_dict": {}}
    whole = {"epoch": 0, "learner": learner, "loops": {"fit_loop": counts}, "optimizer_states": [{}]}
    before = checkpoint.find_resume_point(RunFolder(place))
    for step in range(0 if before is None else before.step + 1, 1_000_000):
        state = whole | {"global_step": step, "state_dict": {"numbers": torch.rand(SIZE)}}
        if checkpoints._write(state, checkpoints.folder.last):
            os.write(writes, step.to_bytes(8, "little"))
