"""Runs that are killed and resumed repeatedly end as undisturbed ones."""

import math
import random
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from states import outcome

from losslab.runs import RunFolder
from soak import commands
from soak.commands import KILL, Fault
from soak.record import Case, CaseResult

DIGITS = (
    "model=mlp", "data=digits", "data.size=8", "data.batch_size=10", "trainer.max_epochs=6", "scheduler=one_cycle",
)  # fmt: skip
KINDS = {
    f"{batches}-{precision}-{'averaged' if average else 'plain'}": (
        f"trainer.accumulate_grad_batches={batches}", f"trainer.precision={precision}", *average,
    )
    for batches in (1, 4)
    for precision in ("32-true", "bf16-mixed")
    for average in ((), ("callbacks=ema",))
}  # fmt: skip
SIGNALS = [Fault(number, to) for number in (signal.SIGTERM, signal.SIGINT) for to in ("parent", "rank", "ranks")]
MAX_SECONDS = 10.0
"""The time in which a signal must have ended a command."""


def cases(count: int) -> list[Case]:
    """SIGKILL to one process, five faults in each case."""
    kinds = list(KINDS)
    return [Case("kills", f"{number} {kinds[number % len(kinds)]}") for number in range(math.ceil(count / 5))]


def rank_cases(count: int) -> list[Case]:
    """All faults to a run of two ranks, five in each case."""
    kinds = list(KINDS)
    return [Case("ranks", f"{number} {kinds[number % len(kinds)]}") for number in range(math.ceil(count / 5))]


def signal_cases(count: int) -> list[Case]:
    """SIGINT and SIGTERM to one process, five faults in each case."""
    kinds = list(KINDS)
    return [Case("signals", f"{number} {kinds[number % len(kinds)]}") for number in range(math.ceil(count / 5))]


def run(case: Case, folder: Path, faults: int = 5) -> CaseResult:
    """Inject faults into a run, and compare its outcome with that of the undisturbed run of its kind."""
    rng = random.Random(repr(case))  # noqa: S311
    number, _, kind = case.name.partition(" ")
    trainer = "trainer=ddp_cpu" if case.part == "ranks" else "trainer=cpu"
    # Save after every step, or hardly ever, so that it is the signals that save.
    seconds = f"callbacks.checkpoints.every_seconds={rng.choice([0, 0.5, 30] if case.part == 'kills' else [0, 30])}"
    command = (*DIGITS, trainer, *KINDS[kind])
    cwd = folder / case.part
    duration = train_undisturbed(command, cwd, kind)
    name = f"run{number}"
    chosen, failures, counted = _draw_faults(case.part, faults, rng), list[str](), 0
    while chosen and not failures:  # a run may end before all faults were injected
        shutil.rmtree(cwd / name, ignore_errors=True)
        for attempt in commands.attempts((*command, seconds), name, cwd, chosen, rng, duration):
            counted += bool(attempt.fault)
            failures += _check_attempt(attempt)
        failures += check_outcome(cwd / name, cwd / f"whole-{kind}")
    return CaseResult(counted, failures)


def check_outcome(run: Path, whole: Path) -> list[str]:
    """Compare a run with the undisturbed one → failures. A run without failures is removed."""
    if not RunFolder(run).metrics.exists():
        return [f"it did not end, see {run}"]
    if outcome(run) != outcome(whole):
        return [f"its outcome differs from the undisturbed one, see {run}"]
    shutil.rmtree(run)
    return []


def _draw_faults(part: str, count: int, rng: random.Random) -> list[Fault]:
    if part == "kills":
        return [KILL] * count
    if part == "signals":
        return [Fault(rng.choice([signal.SIGTERM, signal.SIGINT]), "parent") for _ in range(count)]
    everything = [KILL, Fault(signal.SIGKILL, "rank"), *SIGNALS]
    return [rng.choice(everything) for _ in range(count)]


def train_undisturbed(command: Sequence[str], cwd: Path, kind: str) -> float:
    """Train the run to compare with, unless it is there → its duration in seconds, with start-up."""
    seconds = cwd / f"whole-{kind}.seconds"
    if not seconds.exists():
        shutil.rmtree(cwd / f"whole-{kind}", ignore_errors=True)
        seconds.write_text(str(commands.train(*command, f"run_dir=whole-{kind}", cwd=cwd)))
    return float(seconds.read_text())


def _check_attempt(attempt: commands.Attempt) -> list[str]:
    signalled = attempt.fault.startswith(("SIGTERM", "SIGINT"))
    number = getattr(signal, attempt.fault.split()[0]) if signalled else 0
    failures = []
    if "Traceback" in attempt.out and "losslab" in attempt.out:  # losslab may not be imported yet
        failures.append(f"after {attempt.fault or 'the end'}: a traceback")
    # Before training the signal itself ends the process.
    if signalled and attempt.code not in {0, 128 + number, -number}:
        failures.append(f"after {attempt.fault}: exit code {attempt.code}")
    if signalled and attempt.seconds > MAX_SECONDS:
        failures.append(f"after {attempt.fault}: {attempt.seconds:.1f} s")
    began = not any(
        words in attempt.out for words in commands.NOT_BEGUN
    )  # otherwise it is started again, as it advises
    if not attempt.fault and attempt.code != 0 and began:
        failures.append(f"it ended with exit code {attempt.code}: {attempt.out.strip().splitlines()[-1:]}")
    return failures
