"""Lightning's chatter, and what of it a user never hears.

What Lightning times its hooks with while nobody asked for a profile: nothing.

Lightning's Trainer as a configuration describes it, with its callbacks and loggers.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import PassThroughProfiler

from losslab.errors import LabError
from losslab.models.learner import Learner
from losslab.runs.config import hyperparameters
from losslab.training.callbacks.checkpoint import BestAndLast
from losslab.training.distributed import environment
from losslab.training.instantiate import make


@contextmanager
def quiet() -> Iterator[None]:
    """Keep from the user what Lightning says and nobody here can act on: its advertising, and known warnings."""
    talkers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [talker.level for talker in talkers]
    with warnings.catch_warnings():
        for message in _NOISE:
            warnings.filterwarnings("ignore", message=message)
        for talker in talkers:
            talker.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for talker, level in zip(talkers, levels, strict=True):
                talker.setLevel(level)


_NOISE = (
    r".*LeafSpec.*",  # torch deprecates what Lightning calls on every loader
    r".*smaller than the logging interval.*",  # a run of three points has one batch an epoch
    r".*does not have many workers.*",  # the data lie in memory; workers would only copy them
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*overfit.*shuffling.*",  # the loader does it itself
    r".*GPU available but not used.*",  # trainer=cpu says so on purpose
    r".*was called before the ``update`` method.*",  # a process whose shares of all batches were empty
    r".*`srun` command is available.*",  # a cluster's login node
    r".*lr_scheduler.step.*before.*optimizer.step.*",  # GradScaler skipped the first step
)


_NOTHING = nullcontext()


class Unprofiled(PassThroughProfiler):
    """Lightning's profiler that measures nothing, without a generator for each of some eighty hooks a step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]  # noqa: ARG002
        """One context for all: there is nothing to enter or leave."""
        return _NOTHING


def trainer_of(config: dict[str, Any], learner: Learner) -> Trainer:
    """The Trainer of a resolved configuration, which waits here for the other processes of its run.

    Raises:
        LabError: it, a callback or a logger cannot be made, or monitors what is not measured.
    """
    callbacks = _callbacks(config, learner)
    loggers: list[Logger] = [
        make(f"logger.{name}", item) for name, item in (config.get("logger") or {}).items() if item
    ]
    options = dict(config["trainer"])
    # Lightning puts its own in where it finds none, and finds History to be a Checkpoint.
    options["enable_progress_bar"] = any(isinstance(callback, ProgressBar) for callback in callbacks)
    options["enable_checkpointing"] = any(isinstance(callback, Checkpoint) for callback in callbacks)
    options["profiler"] = options.get("profiler") or Unprofiled()
    options |= {"callbacks": callbacks, "logger": loggers or False, "default_root_dir": config["run_dir"]}
    options |= _together(options)
    with quiet():
        trainer: Trainer = make("trainer", options)
    return trainer


def _callbacks(config: dict[str, Any], learner: Learner) -> list[Callback]:
    """Those that are chosen, without what an option of the trainer switches off."""
    callbacks: list[Callback] = [
        make(f"callbacks.{name}", callback, **_supplied(name, callback, config, learner))
        for name, callback in (config.get("callbacks") or {}).items()
        if callback
    ]
    if config["trainer"].get("enable_progress_bar") is False:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    if config["trainer"].get("enable_checkpointing") is False:
        callbacks = [callback for callback in callbacks if not isinstance(callback, BestAndLast)]
    return callbacks


def _supplied(name: str, callback: dict[str, Any], config: dict[str, Any], learner: Learner) -> dict[str, Any]:
    """What a callback leaves open with null and only the experiment knows: the metric to monitor, the hparams."""
    if not isinstance(callback, dict) or "_target_" not in callback:
        raise LabError(
            f"callbacks.{name} is set and not among the chosen callbacks: leave it out with ~callbacks.{name}"
        )
    supplies: dict[str, Any] = {}
    if callback.get("monitor", "") is None:
        supplies |= {"monitor": learner.monitor, "mode": learner.monitor_mode}
    elif "monitor" in callback and callback["monitor"] not in learner.epoch_metric_names:
        raise LabError(
            f"callbacks.{name}.monitor={callback['monitor']} is none of {', '.join(learner.epoch_metric_names)}"
        )
    if callback.get("hparams", "") is None:
        supplies["hparams"] = hyperparameters(config)
    return supplies


def _together(options: dict[str, Any]) -> dict[str, Any]:
    """What tells Lightning that the ranks are already running, and that the loader shares batches out by itself."""
    place = environment.here()
    if place.world == 1:
        # In a shell or a batch script of SLURM's, Lightning would take this process for one of the job's tasks.
        return {} if "plugins" in options else {"plugins": [LightningEnvironment()]}
    environment.join(place)
    given, devices = options.get("strategy", "auto"), options.get("devices")
    return {
        "strategy": "ddp" if given == "auto" else given,
        "devices": devices if isinstance(devices, list) else place.local_world,
        "num_nodes": place.world // place.local_world,
        "plugins": [TorchElasticEnvironment()],
        "use_distributed_sampler": False,
    }
