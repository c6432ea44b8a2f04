"""The project's own training of a network on random images, with all that a run usually does."""

import logging
import tempfile
from time import perf_counter
from typing import Any

from lightning import Callback
from peers.images_raw import examples, normalise

from benchmarks.timing import Job, Stopwatch
from losslab.cli.process import keep_freed_memory
from losslab.data.batch import Examples
from losslab.data.cifar10 import CIFAR10
from losslab.training.callbacks.gradient_norms import GradientNorms
from losslab.training.callbacks.non_finite import FiniteGuard
from losslab.training.config import compose
from losslab.training.experiment import Experiment, build, run


class Noise(CIFAR10):
    """Random images in the place of CIFAR-10's, which need no download."""

    images = 10_000

    def prepare_data(self) -> None:
        """Nothing to download."""

    def load(self) -> dict[str, Examples]:
        """The same few images in every split."""
        self.transform = normalise()
        return dict.fromkeys(("train", "val", "test"), examples(self.images))


class Watch(Callback):
    """Stops the run when the stopwatch has seen enough."""

    def __init__(self, job: Job) -> None:
        self.stopwatch = Stopwatch(job)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Count the step."""
        if self.stopwatch.step():
            trainer.should_stop = True


def prepared(job: Job, folder: str, *overrides: str) -> tuple[Experiment, Watch]:
    """An experiment that will stop by itself, and the watch in it."""
    keep_freed_memory()
    logging.getLogger("losslab").setLevel(logging.ERROR)
    Noise.images = job.images
    device = "cpu" if job.device == "cpu" else "gpu"
    settings = f"model={job.model}", f"trainer={device}", f"trainer.precision={job.precision}", "test=false"
    config = compose([*settings, "trainer.limit_val_batches=0", *overrides], run_dir=f"{folder}/run")
    config["data"] |= {"_target_": f"{__name__}.Noise", "batch_size": job.batch_size}
    experiment, watch = build(config), Watch(job)
    experiment.trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    return experiment, watch


def rate(job: Job, *overrides: str) -> float:
    """Images a second."""
    with tempfile.TemporaryDirectory() as folder:
        experiment, watch = prepared(job, folder, *overrides)
        run(experiment)
    return watch.stopwatch.rate


def shares(job: Job, *overrides: str) -> dict[str, float]:
    """What the guard and the gradient norms take of a step, as shares of the time of the steps that were timed."""
    with tempfile.TemporaryDirectory() as folder:
        experiment, watch = prepared(job, folder, *overrides)
        taken = {kind.__name__: 0.0 for kind in (FiniteGuard, GradientNorms)}
        for callback in experiment.trainer.callbacks:  # type: ignore[attr-defined]
            if type(callback).__name__ in taken:
                _time_hooks(callback, taken, watch)
        run(experiment)
    whole = job.steps * job.batch_size / watch.stopwatch.rate
    return {name: seconds / whole for name, seconds in taken.items()}


def _time_hooks(callback: Callback, taken: dict[str, float], watch: Watch) -> None:
    name = type(callback).__name__

    def timed(hook: Any) -> Any:
        def call(*arguments: Any) -> None:
            start = perf_counter()
            hook(*arguments)
            if watch.stopwatch.started and not watch.stopwatch.rate:
                taken[name] += perf_counter() - start

        return call

    for hook in ("on_train_batch_start", "on_before_backward", "on_before_optimizer_step", "on_train_batch_end"):
        setattr(callback, hook, timed(getattr(callback, hook)))
