"""Sweeps whose jobs train as one (hydra.launcher.fuse), compared with sweeps with a process for each job."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from benchmarks.linear import process_timer
from benchmarks.page import section, table, target
from benchmarks.timing import in_turn, ratio

DIGITS = ("model=mlp", "data=digits")
TUNED = "loss=cross_entropy,focal,gce,mse,brier,label_smoothing,poly1,hinge"
RATES = "optimizer.lr=3e-4,1e-3,2e-3,3e-3,5e-3,1e-2,3e-2"


@dataclass(frozen=True)
class Case:
    """A sweep, and a small part of it that is also run with a process for each job."""

    title: str
    arguments: tuple[str, ...]
    whole: tuple[str, ...]
    part: tuple[str, ...]
    """The arguments of the part in place of those in `whole`."""
    jobs: int
    jobs_of_part: int
    at_least: float
    """The target: how many times as fast per job the fused sweep shall be."""
    reason: str = ""
    """Why the target may be missed."""

    def command(self, arguments: tuple[str, ...], fuse: str) -> tuple[str, ...]:
        """Return the command of the sweep."""
        return ("train.py", "-m", *self.arguments, *arguments, f"hydra.launcher.fuse={fuse}")


CPU = (
    Case(
        "1,024 linear regressions on three points, 1000 epochs",
        ("trainer=cpu", "loss=mse,l1,huber,log_cosh", "optimizer.lr=2e-3,5e-3,1e-2,2e-2"),
        ("seed=range(64)",),
        ("seed=range(1)",),
        jobs=1024,
        jobs_of_part=16,
        at_least=40,
    ),
    Case(
        "64 MLPs on digits of 8×8 pixels, 50 epochs",
        ("trainer=cpu", *DIGITS, "data.size=8", "loss=cross_entropy,focal"),
        ("seed=range(32)",),
        ("seed=range(4)",),
        jobs=64,
        jobs_of_part=8,
        at_least=6,
    ),
    Case(
        "64 MLPs on digits of 32×32 pixels, 50 epochs",
        ("trainer=cpu", *DIGITS, "loss=cross_entropy,focal"),
        ("seed=range(32)",),
        ("seed=range(4)",),
        jobs=64,
        jobs_of_part=8,
        at_least=6,
        reason="most of the time of a job is arithmetic, which takes as long when fused",
    ),
    Case(
        "8 losses × 7 rates × 2 seeds: MLPs on digits of 8×8 pixels, 50 epochs",
        ("trainer=cpu", *DIGITS, "data.size=8", TUNED, "seed=range(2)"),
        (RATES,),
        ("optimizer.lr=1e-3",),
        jobs=112,
        jobs_of_part=16,
        at_least=5,
    ),
)
GPU = (
    replace(CPU[1], arguments=("trainer=gpu", *CPU[1].arguments[1:]), at_least=30),
    Case(
        "64 cifar_cnn on digits of 32×32 pixels, 12 epochs",
        ("trainer=gpu", "model=cifar_cnn", "data=digits", "loss=cross_entropy,focal"),
        ("seed=range(32)",),
        ("seed=range(4)",),
        jobs=64,
        jobs_of_part=8,
        at_least=4,
    ),
)


def cpu(rounds: int) -> str:
    """Time fused sweeps on the CPU."""
    return _section("Sweeps whose jobs train as one, on the CPU", CPU, rounds, fuse="1024")


def gpu(rounds: int) -> str:
    """Time fused sweeps on a GPU."""
    title = "Sweeps whose jobs train as one, on a GPU"
    if not torch.cuda.is_available():
        command = "python scripts/benchmark.py fused_gpu --write"
        return f"## {title}\n\nNot measured: run `{command}` on a machine with a GPU."
    return _section(title, GPU, rounds, fuse="64")


def _section(title: str, cases: tuple[Case, ...], rounds: int, fuse: str) -> str:
    parts = []
    for case in cases:
        numbers = in_turn(_measures(case, fuse), rounds, case.title, warm_up=False)  # a round takes minutes
        apart, fused = numbers
        times = 1 / ratio(numbers[fused], numbers[apart])
        parts += [
            f"### {case.title}",
            table(numbers, ("command", "seconds per job", "ratio to a process for each job"), apart, ".3f"),
            target(f"at least {case.at_least:g} times as fast per job", times, case.at_least.__le__, case.reason),
        ]
    note = (
        "Both times are from start to exit, divided by the number of jobs. Fused jobs write all files of a run folder\n"
        "but figures. With a process for each job, a part of the sweep is run: the whole sweep would take long."
    )
    return section(title, rounds, *parts, note)


def _measures(case: Case, fuse: str) -> dict[str, Callable[[], float]]:
    whole, part = case.command(case.whole, fuse), case.command(case.part, "null")
    timers = process_timer((*whole, "run_dir=sweep")), process_timer((*part, "run_dir=sweep"))
    names = [" ".join(["python", *command]) for command in (part, whole)]
    return {
        names[0]: lambda: timers[1]() / case.jobs_of_part,
        names[1]: lambda: timers[0]() / case.jobs,
    }
