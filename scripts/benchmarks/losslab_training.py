"""Time how losslab trains a network on random images, with the callbacks of a default run."""

import logging
import tempfile
from time import perf_counter
from typing import Any

from lightning import Callback

from benchmarks.peers.images_raw import examples, normalise
from benchmarks.timing import Job, Stopwatch
from losslab.data.batch import Examples
from losslab.data.cifar10 import CIFAR10
from losslab.data.machine import keep_freed_memory
from losslab.training.callbacks.gradient_norms import GradientNorms
from losslab.training.callbacks.non_finite import FiniteGuard
from losslab.training.config import compose
from losslab.training.experiment import Experiment, build, run


class Noise(CIFAR10):
    """CIFAR-10 with random images instead of a download."""

    images = 10_000

    def prepare_data(self) -> None:
        """Download nothing."""

    def load(self) -> dict[str, Examples]:
        """Return the same images for every split."""
        self.transform = normalise()
        return dict.fromkeys(("train", "val", "test"), examples(self.images))


class _StopCallback(Callback):
    """Stops the run after the timed steps."""

    def __init__(self, job: Job) -> None:
        self.stopwatch = Stopwatch(job)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Count a step."""
        if self.stopwatch.step():
            trainer.should_stop = True


def build_experiment(job: Job, folder: str, *overrides: str) -> tuple[Experiment, _StopCallback]:
    """Build an experiment, and the callback that times and stops it."""
    keep_freed_memory()
    logging.getLogger("losslab").setLevel(logging.ERROR)
    Noise.images = job.images
    device = "cpu" if job.device == "cpu" else "gpu"
    settings = f"model={job.model}", f"trainer={device}", f"trainer.precision={job.precision}", "test=false"
    config = compose([*settings, "trainer.limit_val_batches=0", *overrides], run_dir=f"{folder}/run")
    config["data"] |= {"_target_": f"{__name__}.Noise", "batch_size": job.batch_size}
    experiment, stop = build(config), _StopCallback(job)
    experiment.trainer.callbacks.append(stop)  # type: ignore[attr-defined]
    return experiment, stop


def rate(job: Job, *overrides: str) -> float:
    """Measure the training images per second."""
    with tempfile.TemporaryDirectory() as folder:
        experiment, stop = build_experiment(job, folder, *overrides)
        run(experiment)
    return stop.stopwatch.rate


def bare_rate(job: Job) -> float:
    """Measure the training images per second without callbacks and loggers."""
    return rate(job, "callbacks=none", "logger=none")


def callback_shares(job: Job, *overrides: str) -> dict[str, float]:
    """Measure the time of the guard and of the gradient norms, as shares of the time of the steps."""
    with tempfile.TemporaryDirectory() as folder:
        experiment, stop = build_experiment(job, folder, *overrides)
        seconds_of = {kind.__name__: 0.0 for kind in (FiniteGuard, GradientNorms)}
        for callback in experiment.trainer.callbacks:  # type: ignore[attr-defined]
            if type(callback).__name__ in seconds_of:
                _time_hooks(callback, seconds_of, stop)
        run(experiment)
    whole = job.steps * job.batch_size / stop.stopwatch.rate
    return {name: seconds / whole for name, seconds in seconds_of.items()}


def _time_hooks(callback: Callback, seconds_of: dict[str, float], stop: _StopCallback) -> None:
    name = type(callback).__name__

    def timed(hook: Any) -> Any:
        def call(*arguments: Any) -> None:
            start = perf_counter()
            hook(*arguments)
            if stop.stopwatch.started and not stop.stopwatch.rate:
                seconds_of[name] += perf_counter() - start

        return call

    for hook in ("on_train_batch_start", "on_before_backward", "on_before_optimizer_step", "on_train_batch_end"):
        setattr(callback, hook, timed(getattr(callback, hook)))
