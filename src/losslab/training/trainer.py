"""Instantiates Lightning's Trainer, its callbacks and its loggers from a configuration."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.profilers import PassThroughProfiler

from losslab.errors import LabError
from losslab.models.learner import Learner
from losslab.runs.config import hyperparameters
from losslab.training.callbacks.checkpoint import BestAndLastCheckpoint
from losslab.training.distributed import environment
from losslab.training.instantiate import make

_IGNORED_WARNINGS = (
    r".*LeafSpec.*",  # deprecated by torch; Lightning uses it on every loader
    r".*smaller than the logging interval.*",  # a small data set has few batches in an epoch
    r".*does not have many workers.*",  # the data are in memory, and workers would only copy them
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*overfit.*shuffling.*",  # the loader of losslab handles overfit_batches itself
    r".*GPU available but not used.*",  # trainer=cpu is deliberate
    r".*was called before the ``update`` method.*",  # a rank whose share of every batch was empty
    r".*`srun` command is available.*",  # the login node of a cluster
    r".*is using 'interval': 'epoch'.*",  # the length of a OneCycleLR is filled in for either interval
    r".*overriding.*optimizer_.step.*",  # it changes nothing for accumulated batches
    r".*lr_scheduler.step.*before.*optimizer.step.*",  # GradScaler skipped the first step
)
_NULL_CONTEXT = nullcontext()


@contextmanager
def suppress_lightning_noise() -> Iterator[None]:
    """Suppress Lightning's info messages, and warnings that need no action by the user."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in _IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


class NullProfiler(PassThroughProfiler):
    """A profiler that measures nothing. Lightning's default creates a generator for each of about 80 hooks per step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]  # noqa: ARG002
        """Return the same null context for every action."""
        return _NULL_CONTEXT


def make_trainer(config: dict[str, Any], learner: Learner) -> Trainer:
    """Instantiate the Trainer of a resolved configuration. If there are several ranks, wait until all have joined.

    Raises:
        LabError: the trainer, a callback or a logger cannot be instantiated, or monitors an unknown metric.
    """
    callbacks = _make_callbacks(config, learner)
    loggers = [make(f"logger.{name}", item) for name, item in (config.get("logger") or {}).items() if item]
    options = dict(config["trainer"])
    # Lightning adds a progress bar and a checkpoint callback unless they are disabled. It refuses to disable
    # checkpoints if a callback is a Checkpoint, such as History.
    options["enable_progress_bar"] = any(isinstance(callback, ProgressBar) for callback in callbacks)
    options["enable_checkpointing"] = any(isinstance(callback, Checkpoint) for callback in callbacks)
    options["profiler"] = options.get("profiler") or NullProfiler()
    options |= {"callbacks": callbacks, "logger": loggers or False, "default_root_dir": config["run_dir"]}
    options |= _distributed_options(options)
    with suppress_lightning_noise():
        trainer: Trainer = make("trainer", options)
    return trainer


def _make_callbacks(config: dict[str, Any], learner: Learner) -> list[Callback]:
    """Instantiate the configured callbacks, except those that an option of the trainer disables."""
    callbacks: list[Callback] = [
        make(f"callbacks.{name}", callback, **_arguments_from_run(name, callback, config, learner))
        for name, callback in (config.get("callbacks") or {}).items()
        if callback
    ]
    switches = (("enable_progress_bar", ProgressBar), ("enable_checkpointing", BestAndLastCheckpoint))
    disabled = tuple(kind for option, kind in switches if config["trainer"].get(option) is False)
    return [callback for callback in callbacks if not isinstance(callback, disabled)]


def _arguments_from_run(name: str, callback: Any, config: dict[str, Any], learner: Learner) -> dict[str, Any]:
    """Return the values for `monitor` and `hparams` of a callback if its configuration sets them to null."""
    if not isinstance(callback, dict) or "_target_" not in callback:
        raise LabError(
            f"callbacks.{name} has no _target_: choose it with callbacks=NAME, or leave it out with ~callbacks.{name}"
        )
    arguments: dict[str, Any] = {}
    if callback.get("monitor", "") is None:
        arguments |= {"monitor": learner.monitor, "mode": learner.monitor_mode}
    elif "monitor" in callback and callback["monitor"] not in learner.epoch_metric_names:
        raise LabError(
            f"callbacks.{name}.monitor={callback['monitor']} is not one of {', '.join(learner.epoch_metric_names)}"
        )
    if callback.get("hparams", "") is None:
        arguments["hparams"] = hyperparameters(config)
    return arguments


def _distributed_options(options: dict[str, Any]) -> dict[str, Any]:
    """Join the ranks' process group, and return options with which Lightning uses it and does not shard batches."""
    info = environment.current_rank()
    if info.world_size == 1:
        # In a shell or batch script of SLURM, Lightning would assume that this process is a task of the job.
        return {} if "plugins" in options else {"plugins": [LightningEnvironment()]}
    environment.init_process_group(info)
    strategy, devices = options.get("strategy", "auto"), options.get("devices")
    return {
        "strategy": "ddp" if strategy == "auto" else strategy,
        "devices": devices if isinstance(devices, list) else info.local_world_size,
        "num_nodes": info.world_size // info.local_world_size,
        "plugins": [TorchElasticEnvironment()],
        "use_distributed_sampler": False,
    }
