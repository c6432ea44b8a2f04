"""Instantiates Lightning's Trainer, its callbacks and its loggers from a configuration."""

import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from lightning import Trainer
from lightning.fabric.plugins import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import callbacks as of_lightning
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.plugins import CheckpointIO, Precision
from lightning.pytorch.profilers import PassThroughProfiler

from losslab.errors import LabError, PartError, message_of, part_error
from losslab.io.metric_names import direction
from losslab.models.learner import Learner
from losslab.runs import RunFolder
from losslab.runs.config import hyperparameters
from losslab.runs.trust import leaves
from losslab.training.callbacks.checkpoint import BestAndLastCheckpoint
from losslab.training.callbacks.progress import ProgressBar as DefaultProgressBar
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
    r".*which is not available but strict is set.*",  # no validation yet: the scheduler does not step
    r".*lr_scheduler.step.*before.*optimizer.step.*",  # GradScaler skipped the first step
)
_REFUSED_CALLBACKS = {
    of_lightning.StochasticWeightAveraging: (
        "averages after the last validation, so its weights would be neither measured nor saved: use callbacks=ema, or "
        "_target_=lightning.pytorch.callbacks.WeightAveraging for a plain average"
    ),
    of_lightning.ModelPruning: (
        "prunes after a validation, so other weights would be measured than saved: prune the saved weights.pth with "
        "torch.nn.utils.prune, and train on with ckpt_path=FILE"
    ),
    of_lightning.LearningRateFinder: "changes the learning rate: use -m experiment=tune_lr, or -m optimizer.lr=...",
    of_lightning.BatchSizeFinder: "changes the batch size: compare some with -m data.batch_size=32,64,128",
    of_lightning.BackboneFinetuning: (
        "needs a module named backbone: write a subclass of BaseFinetuning that freezes parts of pl_module.network"
    ),
    of_lightning.BasePredictionWriter: "works only in trainer.predict: use `losslab predict` after training",
    of_lightning.OnExceptionCheckpoint: (
        "would load an old checkpoint: leave it out, because each run saves last.ckpt, and resume=RUN uses it"
    ),
}
"""Callbacks of Lightning that do not work with losslab, and the reason with what to use instead."""
_NEED_LOGGER = (of_lightning.LearningRateMonitor, of_lightning.DeviceStatsMonitor, of_lightning.ThroughputMonitor)
_MAY_LOG = ("LearningRateMonitor", "LambdaCallback")
"""Callbacks of Lightning that log metrics."""
_SET_ELSEWHERE = {
    "callbacks": "choose callbacks=NAME, or add one with +callbacks.NAME._target_=...",
    "logger": "choose logger=NAME, or add one with +logger.NAME._target_=...",
    "default_root_dir": "set run_dir=FOLDER",
    "barebones": "use callbacks=none logger=none",
}
"""Arguments of the Trainer that losslab sets, and what to type instead."""
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


def make_trainer(
    config: dict[str, Any], learner: Learner | None, callbacks: Sequence[Callback] | None = None
) -> Trainer:
    """Instantiate the Trainer of a resolved configuration. If there are several ranks, wait until all have joined.

    Args:
        config: the resolved configuration.
        learner: the learner, whose metrics the callbacks may monitor; None if `callbacks` are given.
        callbacks: the callbacks; None for those in the configuration.

    Raises:
        LabError: the trainer, a callback or a logger cannot be instantiated, or monitors an unknown metric.
    """
    options = dict(config["trainer"])
    for name, advice in _SET_ELSEWHERE.items():
        if options.get(name):
            raise LabError(f"trainer.{name} has no effect: {advice}")
    if callbacks is None:
        assert learner is not None  # noqa: S101 -- for the type checker
        callbacks = make_callbacks(config, learner)
    loggers = [make(f"logger.{name}", item) for name, item in (config.get("logger") or {}).items() if item]
    # Lightning adds a progress bar and a checkpoint callback unless they are disabled. It refuses to disable
    # checkpoints if a callback is a Checkpoint, such as History.
    options["enable_progress_bar"] = any(isinstance(callback, ProgressBar) for callback in callbacks)
    options["enable_checkpointing"] = any(isinstance(callback, Checkpoint) for callback in callbacks)
    options["profiler"] = options.get("profiler") or NullProfiler()
    options |= {"callbacks": [*callbacks], "logger": loggers or False, "default_root_dir": config["run_dir"]}
    options |= _distributed_options(options)
    with suppress_lightning_noise():
        trainer: Trainer = make("trainer", options)
    return trainer


def make_callbacks(config: dict[str, Any], learner: Learner) -> list[Callback]:
    """Instantiate the configured callbacks, except those that an option of the trainer disables."""
    callbacks: list[Callback] = []
    for name, item in (config.get("callbacks") or {}).items():
        if item:
            callback = make(f"callbacks.{name}", item, **arguments_from_run(name, item, config, learner))
            _check_callback(name, callback, has_logger=any((config.get("logger") or {}).values()))
            callbacks.append(callback)
    averaging = [type(each).__name__ for each in callbacks if isinstance(each, of_lightning.WeightAveraging)]
    if len(averaging) > 1:
        raise LabError(
            f"callbacks: {' and '.join(averaging)} would change each other's averages: leave one of them out"
        )
    switches = (("enable_progress_bar", ProgressBar), ("enable_checkpointing", BestAndLastCheckpoint))
    disabled = tuple(kind for option, kind in switches if config["trainer"].get(option) is False)
    if sum(isinstance(callback, ProgressBar) for callback in callbacks) > 1:
        disabled += (DefaultProgressBar,)  # the user's progress bar replaces it
    return [callback for callback in callbacks if not isinstance(callback, disabled)]


def _check_callback(name: str, callback: Any, *, has_logger: bool) -> None:
    """Raise a LabError if a callback would fail, have no effect, or make the measured weights differ from the saved."""
    kind = type(callback).__name__
    if not isinstance(callback, Callback):
        raise LabError(f"callbacks.{name}: {kind} is not a subclass of lightning.pytorch.Callback")
    for refused, advice in _REFUSED_CALLBACKS.items():
        if isinstance(callback, refused):
            raise LabError(f"callbacks.{name}: {kind} {advice}")
    if isinstance(callback, _NEED_LOGGER) and not has_logger:
        raise LabError(f"callbacks.{name}: {kind} writes to a logger: choose logger=tensorboard")
    if isinstance(callback, of_lightning.DeviceStatsMonitor) and find_spec("psutil") is None:
        raise LabError(f"callbacks.{name}: {kind} needs a package that is not installed: pip install psutil")


def arguments_from_run(name: str, callback: Any, config: dict[str, Any], learner: Learner) -> dict[str, Any]:
    """Return arguments of a callback that its configuration leaves open: `monitor` and `hparams` that are null, `mode`.

    A ModelCheckpoint without `dirpath` writes into its own folder, because losslab also writes a last.ckpt.
    """
    if not isinstance(callback, dict) or "_target_" not in callback:
        raise LabError(
            f"callbacks.{name} has no _target_: choose it with callbacks=NAME, or leave it out with ~callbacks.{name}"
        )
    arguments: dict[str, Any] = {}
    kind = _class_of(callback)
    if callback.get("monitor", "") is None:
        arguments |= {"monitor": learner.monitor, "mode": learner.monitor_mode}
    elif isinstance(monitor := callback.get("monitor"), str):
        if monitor not in learner.epoch_metric_names and not may_log_metrics(config):
            raise LabError(f"callbacks.{name}.monitor={monitor} is not one of {', '.join(learner.epoch_metric_names)}")
        if "mode" not in callback and "mode" in _parameters(kind):
            # Lightning's default is "min", also for an accuracy.
            arguments["mode"] = direction(monitor, f"set +callbacks.{name}.mode=min or max")
    if callback.get("hparams", "") is None:
        arguments["hparams"] = hyperparameters(config)
    if kind is not None and issubclass(kind, of_lightning.ModelCheckpoint):
        own = RunFolder(Path(config["run_dir"])).last.parent
        arguments["dirpath"] = callback.get("dirpath") or str(own / name)
        if Path(arguments["dirpath"]).resolve() == own.resolve():
            raise LabError(
                f"callbacks.{name}.dirpath: losslab writes its best.ckpt and last.ckpt there: choose another"
            )
    return arguments


def _class_of(config: Mapping[str, Any]) -> type | None:
    """Return the class that a configuration names; None if it is no class, or cannot be imported."""
    with suppress(Exception):
        kind = get_object(config["_target_"])
        return kind if isinstance(kind, type) else None
    return None


def _parameters(kind: type | None) -> Mapping[str, Any]:
    return {} if kind is None else signature(kind).parameters


def may_log_metrics(config: dict[str, Any]) -> bool:
    """Return whether a callback or the data module may log metrics, so that their names are known only later."""
    parts = leaves({"callbacks": config.get("callbacks") or {}, "data": config["data"]})
    targets = [str(value) for key, value in parts if key.rpartition(".")[2] == "_target_"]
    return any(not target.startswith(("losslab.", "lightning.")) or target.endswith(_MAY_LOG) for target in targets)


@contextmanager
def name_failing_callback() -> Iterator[None]:
    """Turn an error in a callback that is not of losslab into a `part_error` that also names the callback."""
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        hooks = [frame for frame in frames if frame.f_code.co_filename.endswith("lightning/pytorch/trainer/call.py")]
        callback = next((frame.f_locals["callback"] for frame in hooks[::-1] if "callback" in frame.f_locals), None)
        kind = type(callback)
        if not isinstance(callback, Callback) or kind.__module__.startswith("losslab."):
            raise
        raise PartError(f"callback {kind.__name__}: {part_error(error) or message_of(error)}") from error


def _distributed_options(options: dict[str, Any]) -> dict[str, Any]:
    """Join the ranks' process group, and return options with which Lightning uses it and does not shard batches."""
    info = environment.current_rank()
    plugins = options.get("plugins") or []
    plugins = [*plugins] if isinstance(plugins, list | tuple) else [plugins]
    for plugin in plugins:
        _check_plugin(plugin, options)
    if info.world_size == 1:
        # In a shell or batch script of SLURM, Lightning would assume that this process is a task of the job.
        return {"plugins": [*plugins, LightningEnvironment()]}
    environment.init_process_group(info)
    strategy, devices = options.get("strategy", "auto"), options.get("devices")
    return {
        "strategy": "ddp" if strategy == "auto" else strategy,
        "devices": devices if isinstance(devices, list) else info.local_world_size,
        "num_nodes": info.world_size // info.local_world_size,
        "plugins": [*plugins, TorchElasticEnvironment()],
        "use_distributed_sampler": False,
    }


def _check_plugin(plugin: Any, options: dict[str, Any]) -> None:
    """Raise a LabError for a plugin that would have no effect, or contradicts another option of the trainer."""
    kind = _class_of(plugin) if isinstance(plugin, Mapping) else None
    if kind is None:
        return
    if issubclass(kind, CheckpointIO):
        raise LabError(
            f"trainer.plugins: {kind.__name__} has no effect: losslab writes and reads its checkpoints itself"
        )
    if issubclass(kind, ClusterEnvironment):
        raise LabError(
            f"trainer.plugins: leave {kind.__name__} out: losslab finds the ranks of torchrun and SLURM itself"
        )
    if issubclass(kind, Precision) and options.get("precision") is not None:
        raise LabError(f"trainer.plugins: {kind.__name__} contradicts trainer.precision: set trainer.precision=null")
