"""The one place where the parts meet: a configuration goes in, an experiment comes out and can be run."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Trainer, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf
from torch import Tensor

from losslab import CONF, runs
from losslab.callbacks.checkpoints import BestAndLast
from losslab.data.batch import Facts
from losslab.data.module import MemoryDataModule
from losslab.errors import LabError
from losslab.help import choices
from losslab.learner import Learner, learner_for
from losslab.losses.base import Loss
from losslab.runs import RunFolder
from losslab.targets import Kind, choose, encode


@dataclass
class Experiment:
    """Everything a run is made of, built and ready."""

    config: dict[str, Any]
    data: MemoryDataModule
    learner: Learner
    trainer: Trainer
    folder: RunFolder


def build(config: dict[str, Any]) -> Experiment:
    """Build an experiment from a resolved configuration, as Hydra composed it or as a run's config.json holds it.

    Raises:
        LabError: the parts do not fit each other or this machine. Nothing was computed or written yet.
    """
    with _one_line():
        seed_everything(config["seed"], verbose=False)
        data: MemoryDataModule = instantiate(config["data"])
        loss: Loss = instantiate(config["loss"])
        _check_pair(loss, data.facts)
        _check_machine(config["trainer"])
        outputs = data.facts.targets * loss.outputs_per_target
        network = instantiate(config["model"], input_shape=data.facts.input_shape, outputs=outputs)
        if len(data.facts.input_shape) > 1:
            network = network.to(memory_format=torch.channels_last)
        learner = learner_for(data.facts.task)(
            network,
            loss,
            data.facts,
            optimizer=instantiate(config["optimizer"]),
            scheduler=instantiate(config["scheduler"]["scheduler"]),
            interval=config["scheduler"]["interval"],
            seed=config["seed"],
        )
        _check_optimizer(learner)
        trainer = _trainer(config, learner)
    return Experiment(config, data, learner, trainer, RunFolder(Path(config["run_dir"])))


def rebuild(folder: RunFolder, config: dict[str, Any]) -> Experiment:
    """Build a run again from its folder, to look at it: without loggers and callbacks, so that nothing is written.

    Raises:
        LabError: as `build` does.
    """
    here = config["trainer"] | {"accelerator": "auto", "devices": 1}  # whatever machine it was trained on
    return build(config | {"run_dir": str(folder.path), "callbacks": {}, "logger": {}, "trainer": here})


def evaluate(experiment: Experiment, split: str) -> dict[str, float]:
    """The metrics of the learner as it is, on "test" or "val"."""
    measure = experiment.trainer.test if split == "test" else experiment.trainer.validate
    with quiet():
        measure(experiment.learner, datamodule=experiment.data, verbose=False)
    return {name: value for name, value in experiment.learner.values.items() if name.startswith(f"{split}/")}


def run(experiment: Experiment) -> dict[str, float]:
    """Train and test as the configuration says → final values, which are also written to metrics.json."""
    config, folder, learner, trainer = experiment.config, experiment.folder, experiment.learner, experiment.trainer
    runs.write_json(folder.config, config)
    results: dict[str, float] = {}
    if config["ckpt_path"]:
        load_weights(learner, Path(config["ckpt_path"]))
    if config["compile"]:
        learner.network.compile()  # in place: the names in a checkpoint stay what they are
    with quiet(), _one_line():
        if config["train"]:
            trainer.fit(learner, datamodule=experiment.data)
            results |= _training_results(trainer, learner)
        if config["test"]:
            if "best_epoch" in results:
                load_weights(learner, folder.best)
            results |= evaluate(experiment, "test")
    runs.write_json(folder.metrics, results)
    return results


def load_weights(learner: Learner, path: Path) -> None:
    """Load the weights of a checkpoint (.ckpt) or of a plain state_dict (.pth) into the learner's network.

    Raises:
        LabError: the file is missing, damaged, or belongs to another network.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("state_dict", content)
        learner.network.load_state_dict({name.removeprefix("network."): value for name, value in state.items()})
    except FileNotFoundError as error:
        message = f"no checkpoint at {path}"
        raise LabError(message) from error
    except Exception as error:
        # torch.load raises whatever the damage led it to; load_state_dict a RuntimeError of many lines.
        reason = " ".join(str(error).split())[:200]
        message = f"cannot load {path} into this network: {reason}"
        raise LabError(message) from error


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
    r".*exists in.*but will be ignored.*",
)


def _training_results(trainer: Trainer, learner: Learner) -> dict[str, float]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    kept = next((c for c in callbacks if isinstance(c, BestAndLast)), None)
    results: dict[str, float] = {"epochs": trainer.current_epoch, "steps": trainer.global_step}
    if kept is not None and kept.best_epoch is not None:
        results["best_epoch"] = kept.best_epoch
    results |= {k: v for k, v in learner.values.items() if k.startswith("train/")}
    return results | (kept.best_values if kept is not None else {})


def _trainer(config: dict[str, Any], learner: Learner) -> Trainer:
    callbacks: list[Callback] = [
        instantiate(callback, **_supplied(callback, config, learner))
        for callback in (config.get("callbacks") or {}).values()
        if callback
    ]
    loggers: list[Logger] = [instantiate(item) for item in (config.get("logger") or {}).values() if item]
    if not config["trainer"].get("enable_progress_bar", True):
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    if config["trainer"].get("enable_checkpointing") is False:
        callbacks = [callback for callback in callbacks if not isinstance(callback, BestAndLast)]
    options = {"callbacks": callbacks, "logger": loggers or False, "default_root_dir": config["run_dir"]}
    with quiet():
        trainer: Trainer = instantiate(config["trainer"], **options)
    return trainer


def _supplied(callback: dict[str, Any], config: dict[str, Any], learner: Learner) -> dict[str, Any]:
    """What a callback leaves open with null and only the experiment knows: the metric to monitor, the hparams."""
    supplies: dict[str, Any] = {}
    if callback.get("monitor", "") is None:
        supplies |= {"monitor": learner.monitor, "mode": learner.monitor_mode}
    if callback.get("hparams", "") is None:
        supplies["hparams"] = hparams(config)
    return supplies


def hparams(config: dict[str, Any]) -> dict[str, Any]:
    """The settings by which runs are told apart: the choices, and the numbers of loss, optimizer, data and trainer."""
    table = {group: choice for group, choice in config["choices"].items() if choice is not None}
    table["seed"] = config["seed"]
    numbers = {f"{group}.{key}": value for group in ("loss", "optimizer") for key, value in config[group].items()}
    chosen = {f"{group}.{key}": config[group].get(key) for group, key in _TOLD_APART_BY}
    plain = {key: value for key, value in (numbers | chosen).items() if isinstance(value, int | float | str)}
    return table | {key: value for key, value in plain.items() if "._" not in key}


_TOLD_APART_BY = (("data", "batch_size"), ("trainer", "max_epochs"), ("trainer", "precision"))


def _check_pair(loss: Loss, facts: Facts) -> None:
    """Refuse a loss that cannot learn from these targets, or that was set up for others, before anything is read."""
    kind = choose(facts.kind, loss.wants)
    if kind is None:
        names = ", ".join(fitting_losses(facts.kind))
        message = (
            f"loss {type(loss).__name__} takes {' or '.join(loss.wants)} targets, but these data give {facts.kind}: "
            f"choose one of loss={names}"
        )
        raise LabError(message)
    target = _specimen(facts)
    outputs = torch.zeros(len(target), facts.targets * loss.outputs_per_target)
    loss.per_example(outputs, encode(target, facts.kind, kind, facts.targets, outputs.dtype))


def _specimen(facts: Facts) -> Tensor:
    """Two targets such as these data give."""
    if facts.kind is Kind.INDEX:
        return torch.zeros(2, dtype=torch.int64)
    if facts.kind is Kind.PROBABILITIES:
        return torch.full((2, facts.targets), 1 / facts.targets)
    return torch.zeros(2, facts.targets)


def fitting_losses(kind: Kind) -> list[str]:
    """The names of the configured losses that can learn from targets of this kind."""
    names = []
    for name in choices("loss"):
        config = OmegaConf.to_container(OmegaConf.load(CONF / "loss" / f"{name}.yaml"))
        try:
            loss = instantiate(config)
        except InstantiationException:
            continue
        if choose(kind, loss.wants) is not None:
            names.append(name)
    return names


def _check_optimizer(learner: Learner) -> None:
    """Refuse now what the optimizer would refuse when training begins."""
    try:
        learner.optimizer(learner.parameters())
    except (TypeError, ValueError) as error:
        message = f"optimizer: {error}"
        raise LabError(message) from error


def _check_machine(trainer: dict[str, Any]) -> None:
    """Refuse a device that is not here, and a precision that would silently become another."""
    accelerator = trainer.get("accelerator", "auto")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    here = {"gpu": cuda or mps, "cuda": cuda, "mps": mps}
    if not here.get(accelerator, True):
        message = f"trainer.accelerator={accelerator}: torch sees no such device on this machine; use trainer=cpu"
        raise LabError(message)
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not cuda and not mps)
    if on_cpu and str(trainer.get("precision")) in {"16-mixed", "16"}:
        message = "trainer.precision=16-mixed needs a GPU (on a CPU it would silently become bfloat16): use bf16-mixed"
        raise LabError(message)


@contextmanager
def _one_line() -> Iterator[None]:
    """Turn what Hydra and Lightning raise on bad values into one line that says where the value stands."""
    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__
        place = str(error).rpartition("full_key: ")[2] if "full_key: " in str(error) else ""
        reason = " ".join(str(cause if cause is not None else error).split())
        message = f"{place}: {reason}" if place else reason
        raise LabError(message) from error
    except MisconfigurationException as error:
        raise LabError(" ".join(str(error).split())) from error
