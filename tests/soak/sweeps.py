"""Sweeps whose parent process is killed leave no process behind, and can be completed."""

import math
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
from soak.record import Case, CaseResult

SWEEP = (
    "-m", *kills.DIGITS, "trainer=cpu", "trainer.devices=1,2", "loss=cross_entropy,mse", "trainer.max_epochs=3",
    "callbacks.checkpoints.every_seconds=0.3", "hydra.launcher.n_jobs=2",
)  # fmt: skip
MAX_SECONDS = 10.0
"""The time after which no process of a killed sweep may be left."""
MARKER = "LOSSLAB_SOAK"
"""The environment variable that marks the processes of a sweep."""


def cases(count: int) -> list[Case]:
    """Three kills in each case."""
    return [Case("sweeps", str(number)) for number in range(math.ceil(count / 3))]


def run(case: Case, folder: Path, kills_: int = 3) -> CaseResult:
    """Kill the parent of a sweep of four jobs, two of them of two ranks, and complete the sweep."""
    rng = random.Random(repr(case))  # noqa: S311
    cwd = folder / "sweeps"
    duration = kills.train_undisturbed(SWEEP, cwd, "sweep")
    name, failures, counted = f"sweep{case.name}", list[str](), 0
    while counted < kills_ and not failures:  # a sweep may end before it was killed as often
        shutil.rmtree(cwd / name, ignore_errors=True)
        for killed, attempt_failures in _attempts(cwd, name, kills_ - counted, rng, duration):
            counted += killed
            failures += attempt_failures
        failures += _check_outcomes(cwd / name, cwd / "whole-sweep")
    return CaseResult(counted, failures)


def _attempts(
    cwd: Path, name: str, kills_: int, rng: random.Random, seconds: float
) -> Iterator[tuple[bool, list[str]]]:
    """Run a sweep to its end, its parent killed at random moments → whether each process was killed, and failures."""
    again, counted = [*SWEEP, f"run_dir={name}"], 0
    while True:
        marker = f"{os.getpid()}-{name}-{time.monotonic_ns()}"
        process = commands.start(*again, cwd=cwd, variables={MARKER: marker})
        killed, failures = False, list[str]()
        try:
            out, _ = process.communicate(timeout=rng.uniform(0.5, seconds) if counted < kills_ else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed, failures = True, wait_for_end(marker)
            out, _ = process.communicate()
        if not killed and process.returncode != 0:
            failures.append(f"it ended with exit code {process.returncode}: {out.strip().splitlines()[-1:]}")
        yield killed, failures
        if not killed:
            return
        counted += 1
        begun = (cwd / name / "summary.json").exists() and (cwd / name / "summary.json").stat().st_size
        again = [f"resume={name}"] if begun else [*SWEEP, f"run_dir={name}"]
        if not begun:
            shutil.rmtree(cwd / name, ignore_errors=True)


def wait_for_end(marker: str) -> list[str]:
    """Wait for the processes of a killed parent to end → a failure if they do not."""
    until = time.monotonic() + MAX_SECONDS
    while pids := _marked_processes(marker):
        if time.monotonic() > until:
            return [f"{len(pids)} processes were left after {MAX_SECONDS:.0f} s: {pids}"]
        time.sleep(0.1)
    return []


def _marked_processes(marker: str) -> list[str]:
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARKER}={marker}".encode() in (process / "environ").read_bytes().split(b"\0"):
                pids.append(process.name)
        except OSError:
            continue
    return pids


def _check_outcomes(sweep: Path, whole: Path) -> list[str]:
    """Compare the runs of a sweep with those of the undisturbed one → failures. A sweep without failures is removed."""
    expected = {run.parent.name for run in whole.glob("*/metrics.json")}
    runs = {run.parent.name for run in sweep.glob("*/metrics.json")}
    if runs != expected:
        return [f"it has {len(runs)} runs of {len(expected)}, see {sweep}"]
    wrong = [name for name in sorted(runs) if outcome(sweep / name) != outcome(whole / name)]
    if not wrong:
        shutil.rmtree(sweep)
    return [f"{name} has another outcome than the undisturbed one, see {sweep}" for name in wrong]
