"""Linear regression on three points for 1000 epochs: as a process, without imports, and as a sweep of nine runs."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.page import ROOT, section, table, target
from benchmarks.timing import in_turn, ratio

PROCESSES = {
    "raw loop and plot, 20 lines": ("scripts/benchmarks/peers/linear_raw.py",),
    "naive Lightning with a DataLoader": ("scripts/benchmarks/peers/linear_lightning.py",),
    "python train.py": ("train.py", "trainer=cpu", "run_dir=run"),
    "python train.py --help": ("train.py", "--help"),
    "losslab --help": ("-m", "losslab.cli", "--help"),
}
LENGTHS = (1_000, 4_000, 16_000)
LOSSES, SEEDS = ("mse", "l1", "huber"), (0, 1, 2)


def process(rounds: int) -> str:
    """Time processes from start to exit."""
    numbers = in_turn({name: process_timer(command) for name, command in PROCESSES.items()}, rounds, "linear_process")
    raw, _, ours, *helps = numbers
    return section(
        "Linear regression on three points, 1000 epochs: a process from start to exit",
        rounds,
        table(numbers, ("command", "seconds", "ratio to the raw loop"), raw),
        target(
            "at most 1.25 times the time of the raw loop and its plot",
            ratio(numbers[ours], numbers[raw]),
            lambda value: value <= 1.25,
            "the imports of Lightning and Hydra, and the loop of Lightning",
        ),
        "\n".join(
            target(f"{name} takes at most 0.25 seconds", median(numbers[name]), lambda value: value <= 0.25)
            for name in helps
        ),
        "`python train.py` also validates every 10th epoch, tests, checks every step for NaN and infinity, and writes\n"
        "TensorBoard events, history.csv, two figures and three files of weights.",
    )


def in_process(rounds: int) -> str:
    """Time training without the start of the interpreter and the imports, which take most of the time of a process."""
    from losslab.cli.process import fast_imports  # noqa: PLC0415 -- slow, and not needed by the other sections

    with fast_imports():
        from benchmarks.peers.linear_raw import train  # noqa: PLC0415
        from losslab.training.experiment import build, run  # noqa: PLC0415

    def ours(*overrides: str) -> float:
        return _seconds(build, run, *overrides)

    def raw() -> float:
        start = perf_counter()
        train()
        return perf_counter() - start

    bare = ("callbacks=none", "logger=none")
    names = "raw loop", "build and run", "build and run, without callbacks and logger"
    numbers = in_turn({names[0]: raw, names[1]: ours, names[2]: lambda: ours(*bare)}, rounds, "linear_inprocess")
    return section(
        "Linear regression on three points, 1000 epochs: without start-up and imports",
        rounds,
        table(numbers, ("program", "seconds", "ratio to the raw loop"), names[0], ".3f"),
        target(
            "at most 15 times the time of the raw loop",
            ratio(numbers[names[1]], numbers[names[0]]),
            lambda value: value <= 15,
        ),
        "`build` and `run` include history.csv, TensorBoard events, validation every 10th epoch, both figures,\n"
        "checkpoints and the test; the raw loop only keeps its losses in a list.",
    )


def length(rounds: int) -> str:
    """Time runs of different lengths. The time per epoch should not depend on the length."""
    from losslab.cli.process import fast_imports  # noqa: PLC0415 -- slow, and not needed by the other sections

    with fast_imports():
        from losslab.training.experiment import build, run  # noqa: PLC0415

    def microseconds(epochs: int) -> float:
        return 1e6 * _seconds(build, run, f"trainer.max_epochs={epochs}") / epochs

    measures = {f"{epochs} epochs": partial(microseconds, epochs) for epochs in LENGTHS}
    numbers = in_turn(measures, rounds, "linear_length")
    shortest, *_, longest = numbers
    return section(
        "Linear regression on three points: the time of an epoch in runs of different lengths",
        rounds,
        table(numbers, ("length of the run", "microseconds per epoch", "ratio to the shortest run"), shortest, ".0f"),
        target(
            "at most 1.1 times the time per epoch of the shortest run",
            ratio(numbers[longest], numbers[shortest]),
            lambda value: value <= 1.1,
        ),
        "`build` and `run` with the default callbacks and logger; the metric improves in nearly every validation.",
    )


def _seconds(build: Callable[..., Any], run: Callable[..., Any], *overrides: str) -> float:
    from losslab.training.config import compose  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        config = compose(["trainer=cpu", *overrides], run_dir=f"{folder}/run")
        start = perf_counter()
        run(build(config))
        return perf_counter() - start


def sweep(rounds: int) -> str:
    """Time nine runs as separate processes, and as a sweep: one after the other, on all cores, and fused."""
    jobs = [(loss, seed) for loss in LOSSES for seed in SEEDS]
    choices = (f"loss={','.join(LOSSES)}", f"seed={','.join(map(str, SEEDS))}")
    apart = [
        process_timer(("train.py", "trainer=cpu", "run_dir=run", f"loss={loss}", f"seed={seed}")) for loss, seed in jobs
    ]
    measures: dict[str, Callable[[], float]] = {
        f"python train.py, {len(jobs)} times": lambda: sum(timed() for timed in apart)
    }
    for launcher in ("", "hydra.launcher.n_jobs=-1", "hydra.launcher.fuse=auto"):
        options = [launcher] if launcher else []
        name = " ".join(["python train.py -m", *choices, *options])
        measures[name] = process_timer(("train.py", "-m", "trainer=cpu", "run_dir=sweep", *choices, *options))
    numbers = in_turn(measures, rounds, "sweep")
    each = {name: [value / len(jobs) for value in values] for name, values in numbers.items()}
    separate, *sweeps = each
    return section(
        "A sweep of nine linear regressions, from start to exit",
        rounds,
        table(each, ("command", "seconds per job", "ratio to separate processes"), separate),
        target(
            "at most 0.9 seconds per job, each in a process of its own",
            median(each[sweeps[0]]),
            lambda value: value <= 0.9,
            "the loop of Lightning alone takes most of it, see the run without callbacks and logger above",
        ),
        target("at most 0.9 seconds per fused job", median(each[sweeps[-1]]), lambda value: value <= 0.9),
        "With a process for each job, one job is running at a time unless n_jobs is set. A fused job has no figures.",
    )


def process_timer(command: tuple[str, ...]) -> Callable[[], float]:
    """Return a function that runs Python with these arguments in an empty folder, and returns the seconds it took.

    The first argument is a script, relative to the checkout, or -m.
    """
    script, *arguments = command
    script = script if script == "-m" else str(ROOT / script)
    environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT / "src")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # modules are compiled once, in the warm-up round

    def timed() -> float:
        with tempfile.TemporaryDirectory() as folder:
            start = perf_counter()
            subprocess.run(
                [sys.executable, script, *arguments],
                cwd=Path(folder),
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            return perf_counter() - start

    return timed
