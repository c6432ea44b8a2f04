"""Cost of `trainer.deterministic=true`: the same training is timed with and without it, alternately."""

import tempfile
from collections.abc import Callable
from time import perf_counter

import torch

from benchmarks import losslab_training
from benchmarks.page import section, table
from benchmarks.timing import Job, in_own_processes, in_turn
from losslab.training.config import compose
from losslab.training.experiment import build, run

OFF, ON = "trainer.deterministic=false", "trainer.deterministic=true"


def cost(rounds: int) -> str:
    """Time cifar_cnn (on the GPU if there is one) and the regression on three points (on the CPU)."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    job = Job("cifar_cnn", "32-true", device, steps=300 if device == "cuda" else 40)
    images = in_own_processes({OFF: (_default, job), ON: (_deterministic, job)}, rounds, "deterministic, cifar_cnn")
    try:
        points = in_turn({OFF: _points(OFF), ON: _points(ON)}, rounds, "deterministic, linear")
    finally:
        torch.use_deterministic_algorithms(mode=False)
    return section(
        "Cost of deterministic mode",
        rounds,
        table(images, (f"cifar_cnn, {device}", "images per second", "ratio to false"), OFF, ".0f"),
        table(points, ("three points, 1000 epochs, cpu", "seconds", "ratio to false"), OFF, ".3f"),
    )


def _default(job: Job) -> float:
    return losslab_training.rate(job, OFF)


def _deterministic(job: Job) -> float:
    return losslab_training.rate(job, ON)


def _points(mode: str) -> Callable[[], float]:
    def seconds() -> float:
        with tempfile.TemporaryDirectory() as folder:
            config = compose(["trainer=cpu", mode], run_dir=f"{folder}/run")
            start = perf_counter()
            run(build(config))
            return perf_counter() - start

    return seconds
