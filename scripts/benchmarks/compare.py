"""`losslab compare` on a thousand runs, from start to exit."""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.linear import process_timer
from benchmarks.page import section, table, target
from benchmarks.timing import in_turn
from losslab.runs import RunFolder
from losslab.training.config import compose

RUNS, SEEDS = 1000, 100
LENGTHS = (100, 1000)
_FILES = ("config", "metrics", "history", "timing", "metadata")


def thousand_runs(rounds: int) -> str:
    """Time the comparison of ten learning rates with a hundred seeds each, for short and for long histories."""
    with tempfile.TemporaryDirectory() as folder:
        measures = {}
        for epochs in LENGTHS:
            runs = Path(folder) / str(epochs)
            make_runs(runs, epochs)
            command = ("-m", "losslab.cli", "compare", str(runs), "--output", "comparison")
            measures[f"losslab compare, {RUNS} runs of {epochs} epochs"] = process_timer(command)
        numbers = in_turn(measures, rounds, "compare")
    shorter, longer = numbers
    return section(
        f"Comparison of {RUNS} runs: a process from start to exit",
        rounds,
        table(numbers, ("command", "seconds", "ratio to the shorter runs"), shorter),
        target(
            f"at most 2 seconds for runs of {LENGTHS[-1]} epochs",
            median(numbers[longer]),
            lambda value: value <= 2,
            "about half of the time is to read the 2.3 million numbers of the histories, so that damage is noticed",
        ),
        "The tables, notes and figures are those of any comparison: it reads the history of every run.",
    )


def make_runs(folder: Path, epochs: int) -> None:
    """Train one linear regression, and copy it with other seeds, learning rates and values."""
    from losslab.training.experiment import build, run  # noqa: PLC0415 -- slow, and not needed by the other sections

    trained = RunFolder(folder.with_name(f"{folder.name}-trained"))
    config = compose(["trainer=cpu", f"trainer.max_epochs={epochs}", "logger=none"], run_dir=str(trained.path))
    run(build(config))
    for number in range(RUNS):
        rate, seed = divmod(number, SEEDS)
        copy = RunFolder(folder / f"{number}-run")
        copy.path.mkdir(parents=True)
        for name in _FILES:
            shutil.copy(getattr(trained, name), getattr(copy, name))
        factor = 1 + rate / 10 + hash((seed, rate)) % 1000 / 1000  # the hash of numbers is the same in each process
        config = json.loads(copy.config.read_text())
        config |= {"seed": seed, "run_dir": str(copy.path)}
        config["data"]["seed"], config["optimizer"]["lr"] = seed, (1 + rate) / 100
        copy.config.write_text(json.dumps(config))
        metrics = json.loads(copy.metrics.read_text())
        copy.metrics.write_text(json.dumps({name: _scale(value, factor) for name, value in metrics.items()}))
        head, *rows = [line.split(",") for line in copy.history.read_text().splitlines()]
        scaled = [[*row[:3], *(repr(float(cell) * factor) if cell else "" for cell in row[3:])] for row in rows]
        copy.history.write_text("".join(f"{','.join(row)}\n" for row in [head, *scaled]))


def _scale(value: float, factor: float) -> float:
    return value * factor if isinstance(value, float) else value


if __name__ == "__main__":
    make_runs(Path(sys.argv[1]), int(sys.argv[2]))
