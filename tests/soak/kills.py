"""Runs that are killed and resumed, again and again, end as the undisturbed ones."""

import random
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from states import outcome

from losslab.runs import RunFolder
from soak import commands
from soak.commands import KILL, Blow
from soak.record import Case, Found

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
SIGNALS = [Blow(number, to) for number in (signal.SIGTERM, signal.SIGINT) for to in ("parent", "rank", "ranks")]
PROMPT = 10.0
"""Seconds in which a signal is to have ended a command."""


def cases(count: int) -> list[Case]:
    """Of SIGKILL to one process, five blows in each."""
    kinds = list(KINDS)
    return [Case("kills", f"{number} {kinds[number % len(kinds)]}") for number in range(count // 5)]


def rank_cases(count: int) -> list[Case]:
    """Of all that can be done to a run of two processes, five blows in each."""
    kinds = list(KINDS)
    return [Case("ranks", f"{number} {kinds[number % len(kinds)]}") for number in range(count // 5)]


def signal_cases(count: int) -> list[Case]:
    """Of SIGINT and SIGTERM to one process, five blows in each."""
    kinds = list(KINDS)
    return [Case("signals", f"{number} {kinds[number % len(kinds)]}") for number in range(count // 5)]


def run(case: Case, folder: Path, blows: int = 5) -> Found:
    """Strike a run down so often and let it end → whether it ended as the undisturbed run of its kind."""
    moments = random.Random(repr(case))  # noqa: S311
    number, _, kind = case.name.partition(" ")
    trainer = "trainer=ddp_cpu" if case.part == "ranks" else "trainer=cpu"
    # Every step is saved, or hardly any, so that signals are seen to save.
    seconds = f"callbacks.checkpoints.every_seconds={moments.choice([0, 0.5, 30] if case.part == 'kills' else [0, 30])}"
    command = (*DIGITS, trainer, *KINDS[kind])
    place = folder / case.part
    took = undisturbed(command, place, kind)
    name = f"run{number}"
    chosen, failures, counted = _blows(case.part, blows, moments), list[str](), 0
    while chosen and not failures:  # a run may come to its end before it was struck as often
        shutil.rmtree(place / name, ignore_errors=True)
        for life in commands.lives((*command, seconds), name, place, chosen, moments, took):
            counted += bool(life.blow)
            failures += _wrong(life)
        failures += otherwise(place / name, place / f"whole-{kind}")
    return Found(counted, failures)


def otherwise(run: Path, whole: Path) -> list[str]:
    """Whether a run ended otherwise than the one that nobody disturbed; if not, it is removed."""
    if not RunFolder(run).metrics.exists():
        return [f"it did not come to its end, see {run}"]
    if outcome(run) != outcome(whole):
        return [f"it ended otherwise than the undisturbed one, see {run}"]
    shutil.rmtree(run)
    return []


def _blows(part: str, count: int, moments: random.Random) -> list[Blow]:
    if part == "kills":
        return [KILL] * count
    if part == "signals":
        return [Blow(moments.choice([signal.SIGTERM, signal.SIGINT]), "parent") for _ in range(count)]
    everything = [KILL, Blow(signal.SIGKILL, "rank"), *SIGNALS]
    return [moments.choice(everything) for _ in range(count)]


def undisturbed(command: Sequence[str], place: Path, kind: str) -> float:
    """Have the run to compare with → about how many seconds it takes, start-up included."""
    seconds = place / f"whole-{kind}.seconds"
    if not seconds.exists():
        shutil.rmtree(place / f"whole-{kind}", ignore_errors=True)
        seconds.write_text(str(commands.train(*command, f"run_dir=whole-{kind}", cwd=place)))
    return float(seconds.read_text())


def _wrong(life: commands.Life) -> list[str]:
    asked = life.blow.startswith(("SIGTERM", "SIGINT"))
    number = getattr(signal, life.blow.split()[0]) if asked else 0
    found = []
    if "Traceback" in life.out and "losslab" in life.out:  # Python itself may not have come to losslab yet
        found.append(f"after {life.blow or 'the end'}: a traceback")
    # Before training it is the system that ends it, with the signal itself.
    if asked and life.code not in {0, 128 + number, -number}:
        found.append(f"after {life.blow}: exit code {life.code}")
    if asked and life.seconds > PROMPT:
        found.append(f"after {life.blow}: {life.seconds:.1f} s")
    began = not any(words in life.out for words in commands.NOT_BEGUN)  # else it is begun anew, as it says
    if not life.blow and life.code != 0 and began:
        found.append(f"it ended with exit code {life.code}: {life.out.strip().splitlines()[-1:]}")
    return found
