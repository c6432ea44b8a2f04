"""Sweeps whose parent is killed: no process is left, and they are completed."""

import os
import random
import shutil
import signal
import subprocess
import time
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
    name = f"sweep{case.name}"
    shutil.rmtree(place / name, ignore_errors=True)
    again, failures, struck = [*SWEEP, f"run_dir={name}"], [], 0
    while True:
        mark = f"{os.getpid()}-{name}-{struck}"
        process = commands.start(*again, cwd=place, variables={_MARK: mark})
        if struck < blows:
            try:
                out, _ = process.communicate(timeout=moments.uniform(0.5, took))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                struck += 1
                failures += _left(mark)
                out, _ = process.communicate()
        else:
            out, _ = process.communicate()
        if process.returncode == 0:
            break
        if struck == blows and process.returncode != -signal.SIGKILL:
            failures.append(f"it ended with exit code {process.returncode}: {out.strip().splitlines()[-1:]}")
            break
        begun = (place / name / "summary.json").exists() and (place / name / "summary.json").stat().st_size
        again = [f"resume={name}"] if begun else [*SWEEP, f"run_dir={name}"]
        if not begun:
            shutil.rmtree(place / name, ignore_errors=True)
    return Found(struck, failures + _otherwise(place / name, place / "whole-sweep"))


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
