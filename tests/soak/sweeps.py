"""Sweeps whose parent is killed: no process is left, and they are completed."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from states import outcome

from soak import commands, kills
from soak.record import Case, Found

SWEEP = (
    "-m", *kills.DIGITS, "trainer=cpu", "trainer.devices=1,2", "loss=cross_entropy,mse", "trainer.max_epochs=3",
    "callbacks.checkpoints.every_seconds=0.3", "hydra.launcher.n_jobs=2",
)  # fmt: skip
LEFT = 10.0
"""Seconds after which no process of a killed sweep may be left."""
_MARK = "LOSSLAB_SOAK"


def cases(count: int) -> list[Case]:
    """Three kills in each."""
    return [Case("sweeps", str(number)) for number in range(count // 3)]


def run(case: Case, folder: Path, blows: int = 3) -> Found:
    """Kill the parent of a sweep of four jobs, two of them of two processes, so often, and complete it."""
    moments = random.Random(repr(case))  # noqa: S311
    place = folder / "sweeps"
    took = kills.undisturbed(SWEEP, place, "sweep")
    name, failures, struck = f"sweep{case.name}", list[str](), 0
    while struck < blows and not failures:  # one may come to its end before it was struck as often
        shutil.rmtree(place / name, ignore_errors=True)
        for killed, wrong in _lives(place, name, blows - struck, moments, took):
            struck += killed
            failures += wrong
        failures += _otherwise(place / name, place / "whole-sweep")
    return Found(struck, failures)


def _lives(
    place: Path, name: str, blows: int, moments: random.Random, seconds: float
) -> Iterator[tuple[bool, list[str]]]:
    """Sweep until all is done, its parent killed so often → each time whether it was, and what went wrong."""
    again, struck = [*SWEEP, f"run_dir={name}"], 0
    while True:
        mark = f"{os.getpid()}-{name}-{time.monotonic_ns()}"
        process = commands.start(*again, cwd=place, variables={_MARK: mark})
        killed, wrong = False, list[str]()
        try:
            out, _ = process.communicate(timeout=moments.uniform(0.5, seconds) if struck < blows else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed, wrong = True, _left(mark)
            out, _ = process.communicate()
        if not killed and process.returncode != 0:
            wrong.append(f"it ended with exit code {process.returncode}: {out.strip().splitlines()[-1:]}")
        yield killed, wrong
        if not killed:
            return
        struck += 1
        begun = (place / name / "summary.json").exists() and (place / name / "summary.json").stat().st_size
        again = [f"resume={name}"] if begun else [*SWEEP, f"run_dir={name}"]
        if not begun:
            shutil.rmtree(place / name, ignore_errors=True)


def _left(mark: str) -> list[str]:
    """The processes that a killed parent has left behind."""
    until = time.monotonic() + LEFT
    while found := _marked(mark):
        if time.monotonic() > until:
            return [f"{len(found)} processes were left after {LEFT:.0f} s: {found}"]
        time.sleep(0.1)
    return []


def _marked(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{_MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(process.name)
        except OSError:
            continue
    return found


def _otherwise(sweep: Path, whole: Path) -> list[str]:
    """Which runs of a sweep ended otherwise than those of the one that nobody disturbed; if none did, it is removed."""
    theirs = {run.parent.name for run in whole.glob("*/metrics.json")}
    mine = {run.parent.name for run in sweep.glob("*/metrics.json")}
    if mine != theirs:
        return [f"it has {len(mine)} runs of {len(theirs)}, see {sweep}"]
    wrong = [name for name in sorted(mine) if outcome(sweep / name) != outcome(whole / name)]
    if not wrong:
        shutil.rmtree(sweep)
    return [f"{name} ended otherwise than the undisturbed one, see {sweep}" for name in wrong]
