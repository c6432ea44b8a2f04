"""Lightning's Trainer as a configuration describes it, with its callbacks and loggers."""

from typing import Any

from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger

from losslab import ranks
from losslab.callbacks.checkpoints import BestAndLast
from losslab.errors import LabError
from losslab.hparams import hparams
from losslab.learner import Learner
from losslab.making import make
from losslab.silence import quiet
from losslab.unprofiled import Unprofiled


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
        message = f"callbacks.{name} is set and not among the chosen callbacks: leave it out with ~callbacks.{name}"
        raise LabError(message)
    supplies: dict[str, Any] = {}
    if callback.get("monitor", "") is None:
        supplies |= {"monitor": learner.monitor, "mode": learner.monitor_mode}
    elif "monitor" in callback and callback["monitor"] not in learner.curves:
        message = f"callbacks.{name}.monitor={callback['monitor']} is none of {', '.join(learner.curves)}"
        raise LabError(message)
    if callback.get("hparams", "") is None:
        supplies["hparams"] = hparams(config)
    return supplies


def _together(options: dict[str, Any]) -> dict[str, Any]:
    """What tells Lightning that the ranks are already running, and that the loader shares batches out by itself."""
    place = ranks.here()
    if place.world == 1:
        # In a shell or a batch script of SLURM's, Lightning would take this process for one of the job's tasks.
        return {} if "plugins" in options else {"plugins": [LightningEnvironment()]}
    ranks.join(place)
    given, devices = options.get("strategy", "auto"), options.get("devices")
    return {
        "strategy": "ddp" if given == "auto" else given,
        "devices": devices if isinstance(devices, list) else place.local_world,
        "num_nodes": place.world // place.local_world,
        "plugins": [TorchElasticEnvironment()],
        "use_distributed_sampler": False,
    }
