"""Fused sweeps that are killed and interrupted repeatedly, and completed, end as undisturbed ones."""

import contextlib
import math
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from states import outcome

from losslab.runs import RunFolder
from soak import commands, sweeps
from soak.commands import Fault
from soak.record import Case, CaseResult

_SWEEP = ("-m", "trainer=cpu", "hydra.launcher.fuse=64", "callbacks.checkpoints.every_seconds=0.2")
KINDS: dict[str, tuple[str, ...]] = {
    # The members with squared error and lr=1e30 diverge; others are stopped early.
    "linear": (
        *_SWEEP, "loss=mse,huber,l1", "optimizer.lr=0.02,0.1,1e30", "seed=0,1", "trainer.max_epochs=200",
        "callbacks=early_stopping", "callbacks.early_stopping.patience=3",
    ),
    # Two groups: the classes of the optimizers differ.
    "mlp": (
        *_SWEEP, "model=mlp", "data=digits", "data.size=8", "data.batch_size=90", "optimizer=adam,momentum",
        "scheduler=one_cycle,cosine", "loss=cross_entropy,focal", "trainer.max_epochs=12",
    ),
}  # fmt: skip
FAULTS = [
    Fault(signal.SIGKILL, "group"), Fault(signal.SIGKILL, "parent"), Fault(signal.SIGKILL, "rank"),
    *(Fault(number, to) for number in (signal.SIGTERM, signal.SIGINT) for to in ("parent", "rank")),
]  # fmt: skip
"""To the command, or to the process that trains the group. SIGKILL is drawn as often as the signals together."""
MAX_SECONDS = 20.0
"""The time in which a signal must have ended a command."""


class Moment(NamedTuple):
    """When a fault is injected: after some files have changed, or at any time."""

    name: str
    pattern: str = ""
    """The files in the folder of the sweep that are watched; "" for any time."""
    seconds: float = 0.0
    """The largest number of seconds after the change; 0 for the duration of an undisturbed sweep."""


MOMENTS = (
    Moment("at any time"),
    Moment("before the first checkpoint", "fused/*/train.log", 1.5),
    Moment("while it trains and validates", "fused/*/checkpoints/last.ckpt"),
    Moment("while it writes the folders", "*/history.csv", 0.1),
    Moment("while it writes the results", "*/metrics.json", 0.02),
    Moment("after the end of a group", "fused/*/results.json", 0.5),
)


def cases(count: int) -> list[Case]:
    """Five faults in each case."""
    kinds = list(KINDS)
    return [Case("fused", f"{number} {kinds[number % len(kinds)]}") for number in range(math.ceil(count / 5))]


def run(case: Case, folder: Path, faults: int = 5, moments: Sequence[Moment] = MOMENTS) -> CaseResult:
    """Inject faults into a fused sweep, complete it, and compare its runs with those of the undisturbed one."""
    rng = random.Random(repr(case))  # noqa: S311
    number, _, kind = case.name.partition(" ")
    cwd = folder / case.part
    seconds = _train_undisturbed(kind, cwd)
    name, failures, counted = f"sweep{number}", list[str](), 0
    while counted < faults and not failures:  # a sweep may end before all faults were injected
        shutil.rmtree(cwd / name, ignore_errors=True)
        for attempt in _attempts(cwd, name, kind, faults - counted, rng, seconds, moments):
            counted += bool(attempt.fault)
            failures += [] if attempt.fault else _check_end(attempt, cwd / f"whole-{kind}")
            failures += _check_attempt(attempt, cwd / name)
        failures += check_outcomes(cwd / name, cwd / f"whole-{kind}")
    return CaseResult(counted, failures)


def _train_undisturbed(kind: str, cwd: Path) -> float:
    """Train the sweep to compare with, unless it is there → its duration in seconds, with start-up."""
    whole, seconds = cwd / f"whole-{kind}", cwd / f"whole-{kind}.seconds"
    if not seconds.exists():
        shutil.rmtree(whole, ignore_errors=True)
        began = time.monotonic()
        process = commands.start(*KINDS[kind], f"run_dir={whole.name}", cwd=cwd)
        out, _ = process.communicate()
        if not list(whole.glob("*/metrics.json")):
            raise RuntimeError(out)
        seconds.write_text(str(time.monotonic() - began))
    return float(seconds.read_text())


def _attempts(
    cwd: Path, name: str, kind: str, faults: int, rng: random.Random, seconds: float, moments: Sequence[Moment]
) -> Iterator[commands.Attempt]:
    """Run a sweep to its end, with faults at random moments."""
    folder, first = cwd / name, (*KINDS[kind], f"run_dir={name}")
    again: Sequence[str] = first
    for remaining in range(faults, -1, -1):
        marker = f"{os.getpid()}-{name}-{time.monotonic_ns()}"
        process, moment, fault = commands.start(*again, cwd=cwd, variables={sweeps.MARKER: marker}), "", None
        if remaining:
            chosen = rng.choice(moments)
            if _wait_for(chosen, process, folder, rng, seconds):
                fault, moment = FAULTS[rng.choice([0, 1, 2, 2, 3, 4, 5, 6])], f" {chosen.name}"
                fault.inject(process, rng)
        injected = time.monotonic()
        out, _ = process.communicate()
        took = time.monotonic() - injected
        out += "".join(f"\n{line}" for line in sweeps.wait_for_end(marker))
        yield commands.Attempt("" if fault is None else f"{fault}{moment}", process.returncode, took, out)
        if fault is None:
            return
        summary = folder / "summary.json"
        begun = summary.exists() and summary.stat().st_size
        again = [f"resume={name}"] if begun and rng.random() < 0.5 else first
        if not begun:
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for(moment: Moment, process: subprocess.Popen[str], folder: Path, rng: random.Random, seconds: float) -> bool:
    """Wait for a moment → whether the process still runs."""
    before = _modified(folder, moment.pattern)
    while moment.pattern and process.poll() is None and _modified(folder, moment.pattern) <= before:
        time.sleep(0.002)
    limit = rng.uniform(0, moment.seconds or (seconds / 2 if moment.pattern else seconds))
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(limit)
    return process.poll() is None


def _modified(folder: Path, pattern: str) -> int:
    """The newest time at which one of the files changed."""
    times = [0]
    for file in folder.glob(pattern) if pattern else ():
        with contextlib.suppress(FileNotFoundError):
            times.append(file.stat().st_mtime_ns)
    return max(times)


def _check_attempt(attempt: commands.Attempt, sweep: Path) -> list[str]:
    failures = []
    logs = "".join(log.read_text() for log in sweep.glob("fused/*/train.log"))
    if ("Traceback" in attempt.out and "losslab" in attempt.out) or "Traceback" in logs:
        failures.append(f"after {attempt.fault or 'the end'}: a traceback, see {sweep}")
    if "cannot be resumed" in logs:
        failures.append(f"after {attempt.fault or 'the end'}: a checkpoint was not used, see {sweep}")
    if "processes were left" in attempt.out:
        failures.append(f"after {attempt.fault}: {attempt.out.splitlines()[-1]}")
    signalled = attempt.fault.startswith(("SIGTERM", "SIGINT"))
    if signalled and "parent" in attempt.fault:
        number = getattr(signal, attempt.fault.split()[0])
        # Before the jobs start the signal itself ends the process; after they ended it comes too late.
        if attempt.code not in {0, 1, 128 + number, -number}:
            failures.append(f"after {attempt.fault}: exit code {attempt.code}")
        if attempt.seconds > MAX_SECONDS:
            failures.append(f"after {attempt.fault}: {attempt.seconds:.1f} s")
    return failures


def _check_end(attempt: commands.Attempt, whole: Path) -> list[str]:
    """Check the exit code of the last attempt: 1 if the undisturbed sweep has members that fail."""
    expected = int(len([*whole.glob("*/metrics.json")]) < len([*whole.glob("*/config.json")]))
    if attempt.code == expected:
        return []
    return [f"it ended with exit code {attempt.code}: {attempt.out.strip().splitlines()[-1:]}"]


def check_outcomes(sweep: Path, whole: Path) -> list[str]:
    """Compare the runs of a sweep with those of the undisturbed one → failures. A sweep without failures is removed."""
    names = {path.parent.name for path in whole.glob("*/config.json")}
    if {path.parent.name for path in sweep.glob("*/config.json")} != names:
        return [f"it has other runs than the undisturbed one, see {sweep}"]
    wrong = [name for name in sorted(names) if not _is_same(RunFolder(sweep / name), RunFolder(whole / name))]
    left = [*sweep.glob("*/**/.*.tmp"), *sweep.glob("fused/**/*.ckpt")]
    if not wrong and not left:
        shutil.rmtree(sweep)
    return [
        *(f"{name} has another outcome than the undisturbed one, see {sweep}" for name in wrong),
        *(f"{path} was left" for path in left),
    ]


def _is_same(run: RunFolder, whole: RunFolder) -> bool:
    if whole.metrics.exists():
        return run.metrics.exists() and outcome(run.path) == outcome(whole.path)
    if "run folder" in run.log.read_text():  # its group had ended, so it was started again and failed by itself
        return not run.metrics.exists()
    return run.history.read_bytes() == whole.history.read_bytes() and not run.metrics.exists() and not run.last.exists()
