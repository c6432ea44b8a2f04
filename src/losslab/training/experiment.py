"""The one place where the parts meet: a configuration goes in, an experiment comes out and can be run."""

import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Trainer, seed_everything

from losslab import __version__, runs
from losslab.data.batch import DataSpec
from losslab.data.metadata import DataMetadata
from losslab.data.module import ExperimentDataModule
from losslab.errors import LabError, NonFiniteError
from losslab.io import conf_groups
from losslab.models.learner import Learner, learner_for
from losslab.runs import RunFolder, checkpoint
from losslab.training import preflight, teacher, weights
from losslab.training.callbacks.checkpoint import training_results
from losslab.training.distributed import environment
from losslab.training.instantiate import make, make_later, make_loss, make_network, one_line
from losslab.training.loggers import RunLogger
from losslab.training.trainer import make_trainer, suppress_lightning_noise

logger = logging.getLogger("losslab")


@dataclass
class Experiment:
    """Everything a run is made of, built and ready."""

    config: dict[str, Any]
    data: ExperimentDataModule
    learner: Learner
    trainer: Trainer
    folder: RunFolder


def build(config: dict[str, Any]) -> Experiment:
    """Build an experiment from a resolved configuration, as Hydra composed it or as a run's config.json holds it.

    Raises:
        LabError: the parts do not fit each other or this machine. Nothing was computed or written yet.
    """
    data: ExperimentDataModule = make("data", config["data"])
    data.corrupt([make(group, config[group]) for group in conf_groups.CORRUPTIONS if config.get(group)])
    if config.get("mix"):
        data.enable_mixing(make("mix", config["mix"]))
    _seed(config["seed"])  # a loss may have parameters that are learnt, and drawn
    loss = make_loss(config["loss"], data.spec.kind, data.spec.targets)
    preflight.check_pair(loss, data.spec)
    preflight.check_machine(config["trainer"])
    # Here and not earlier: what data or a loss draw must not change the initial weights.
    _seed(config["seed"])
    network = make_network(config, data.spec, loss)
    if config["scheduler"]["interval"] not in ("step", "epoch"):
        raise LabError(f"scheduler.interval must be step or epoch, got {config['scheduler']['interval']!r}")
    learner = learner_for(data.spec.task)(
        network,
        loss,
        data.spec,
        optimizer=make_later("optimizer", config["optimizer"]),
        scheduler=make_later("scheduler.scheduler", config["scheduler"]["scheduler"]),
        interval=config["scheduler"]["interval"],
        seed=config["seed"],
        # A mixed batch has no labels of its own: what a network makes of the given ones cannot be counted.
        track_given_labels=bool(config.get("noise")) and not config.get("mix"),
    )
    preflight.check_optimizer(learner)
    return Experiment(config, data, learner, make_trainer(config, learner), RunFolder(Path(config["run_dir"])))


def data_spec(data: dict[str, Any]) -> DataSpec:
    """What data of this configuration declare, without reading them."""
    module: ExperimentDataModule = make("data", data)
    return module.spec


def rebuild(folder: RunFolder, config: dict[str, Any]) -> Experiment:
    """Build a run again from its folder, on whatever machine this is, to measure it on all of its data.

    Without loggers and callbacks, so that nothing is written, and without the limits of debugging. Data that are not
    there are not fetched: where from and where to is what the folder says.

    Raises:
        LabError: as `build` does; or the data of the configuration are not of the kind that the run learnt from.
    """
    everything: dict[str, Any] = {f"limit_{split}_batches": 1.0 for split in ("train", "val", "test", "predict")}
    everything |= {"overfit_batches": 0.0, "fast_dev_run": False, "profiler": None}
    if folder.teacher.is_dir():
        config = teacher.taught_by(str(folder.teacher), config)
    experiment = build_to_look_at(config | {"run_dir": str(folder.path), "trainer": config["trainer"] | everything})
    experiment.data.may_download = False
    experiment.data.expected_manifest = folder.read_faults()
    known = folder.read_metadata()
    if known is not None:
        experiment.data.training_metadata = DataMetadata.from_json(known, folder.metadata)
        experiment.data.training_metadata.check_compatible(experiment.data.spec)
    return experiment


def build_to_look_at(config: dict[str, Any]) -> Experiment:
    """Build on whatever machine this is, in one process, and without the loggers and callbacks that write files.

    Raises:
        LabError: as `build` does.
    """
    trainer = config["trainer"] | {"accelerator": "auto", "devices": 1}
    if str(trainer.get("precision")) in {"16-mixed", "16"} and not torch.cuda.is_available():
        trainer["precision"] = "32-true"
    return build(config | {"callbacks": {}, "logger": {}, "trainer": trainer})


def evaluate(experiment: Experiment, split: str) -> dict[str, float]:
    """The metrics of the learner as it is, on "test" or "val"."""
    measure = experiment.trainer.test if split == "test" else experiment.trainer.validate
    with suppress_lightning_noise():
        measure(experiment.learner, datamodule=experiment.data, verbose=False)
    return {name: value for name, value in experiment.learner.values.items() if name.startswith(f"{split}/")}


def run(experiment: Experiment, *, resume: bool = False) -> dict[str, float]:
    """Train and test as the configuration says → final values, which are also written to metrics.json.

    Args:
        experiment: as `build` made it.
        resume: go on with the run that its folder holds.

    Raises:
        LabError: the data cannot be had, the folder holds another run, or training went wrong.
    """
    if not resume:
        preflight.check_length(experiment.config)
    with runs.lock(experiment.folder.path) if experiment.trainer.is_global_zero else nullcontext():
        start = (
            checkpoint.find_resume_point(experiment.folder, tidy=experiment.trainer.is_global_zero) if resume else None
        )
        if resume:
            _say_from_where(experiment, start)
        _begin(experiment, start, resume=resume)
        return _train_and_test(experiment, start)


def _say_from_where(experiment: Experiment, start: checkpoint.ResumePoint | None) -> None:
    """Tell the user, and TensorBoard, which would else show twice what is logged again."""
    if experiment.trainer.is_global_zero:
        if start is None:
            logger.warning("resumed     from the beginning: no checkpoint had been written yet")
        else:
            logger.info("resumed     from step %d", start.step)
    for board in experiment.trainer.loggers:
        if isinstance(board, RunLogger):
            board.purge_after(-1 if start is None else start.step)


def _train_and_test(experiment: Experiment, start: checkpoint.ResumePoint | None) -> dict[str, float]:
    config, folder, learner, trainer = experiment.config, experiment.folder, experiment.learner, experiment.trainer
    results: dict[str, float] = {}
    with suppress_lightning_noise(), one_line("trainer"):
        if start is not None and start.results is not None:
            results |= start.results
            weights.load(learner, start.path)
        elif config["train"]:
            path = None if start is None else start.path
            try:
                with checkpoint.explain_mismatch(start, trainer):
                    trainer.fit(learner, datamodule=experiment.data, ckpt_path=path, weights_only=True)
            except NonFiniteError as error:
                if error.on_all_ranks:
                    environment.barrier_before_exit()
                raise
            results |= training_results(trainer, learner)
        if config["test"]:
            if "best_epoch" in results:
                trainer.strategy.barrier()  # rank 0 wrote them, all ranks read them
                weights.load(learner, folder.best)
            results |= evaluate(experiment, "test")
    if trainer.is_global_zero:
        runs.write_json(folder.metrics, results)
    return results


def _begin(experiment: Experiment, start: checkpoint.ResumePoint | None, *, resume: bool) -> None:
    """Read the data and look at all that can still be refused; then there is a run, and its folder.

    A run that is resumed was looked at when it began, and its folder says what it is: nothing there is written again.
    """
    config, folder, learner, trainer = experiment.config, experiment.folder, experiment.learner, experiment.trainer
    if trainer.is_global_zero and not resume:
        _refuse_another(folder)
    if config["ckpt_path"] and start is None:
        weights.load(learner, Path(config["ckpt_path"]), start=True)
    if resume:
        experiment.data.expected_manifest = folder.read_faults()
    experiment.data.prepare_data()
    experiment.data.setup()
    if resume:
        _check_data(experiment)
    elif config["train"]:
        _check_first_step(experiment)
    # Only now is there a run: what was wrong until here leaves no folder that looks like one.
    if trainer.is_global_zero and not resume:
        if experiment.data.manifest is not None:
            runs.write_json(folder.faults, experiment.data.manifest)
        runs.write_json(folder.metadata, experiment.data.metadata.as_json())
        if config.get("teacher"):
            folder.copy_teacher(RunFolder(Path(config["teacher"])))
        # Last, as it makes the folder a run's: whoever is resumed finds all of them, or none.
        runs.write_json(folder.config, config | {"made_with": _made_with(trainer)})
    if config["compile"]:
        learner.network.compile()  # in place: the names in a checkpoint stay what they are


def _refuse_another(folder: RunFolder) -> None:
    for file, what in ((folder.config, "run"), (folder.path / runs.SUMMARY, "sweep")):
        if file.exists():
            raise LabError(f"{folder.path} already holds a {what}: choose another run_dir")


def _check_data(experiment: Experiment) -> None:
    """Refuse to go on with other data than those that the run has learnt from so far."""
    known, found = experiment.folder.read_metadata(), experiment.data.metadata.as_json()
    # Their means may differ in the last digit on another machine.
    plain = [{key: value for key, value in (each or {}).items() if key != "normalise"} for each in (known, found)]
    if known is not None and plain[0] != json.loads(json.dumps(plain[1])):
        raise LabError(
            f"the data are not those that {experiment.folder.path} has learnt from so far ({experiment.folder.metadata} "
            "says what those were): name their place with data.dir=, or start a new run"
        )


def _made_with(trainer: Trainer) -> dict[str, str]:
    """What else may change the digits of a result: versions and device."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"losslab": __version__, "torch": torch.__version__, "lightning": lightning.__version__, "device": name}


def _check_first_step(experiment: Experiment) -> None:
    config, data, learner, trainer = experiment.config, experiment.data, experiment.learner, experiment.trainer
    device = trainer.strategy.root_device
    if trainer.world_size > 1 and not (config["trainer"].get("sync_batchnorm") and device.type == "cuda"):
        preflight.check_shares(learner.network, data.splits["train"].size, data.batch_size, trainer.world_size)
    if config.get("examine", True):  # which a configuration of an older run does not have
        preflight.check(learner, data, device)


def _seed(seed: Any) -> None:
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise LabError(f"seed must be a whole number from 0 to {2**32 - 1}, got {seed!r}")
    seed_everything(seed, verbose=False)
