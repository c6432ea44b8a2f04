"""Builds the `Experiment` of a resolved configuration. Trains and tests it, or evaluates it on one split."""

import json
import logging
import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Trainer, seed_everything
from torch import distributed

from losslab import __version__, runs
from losslab.data.checks import find_degenerate
from losslab.data.module import DataMetadata, ExperimentDataModule
from losslab.data.transforms import Augment, RandomShift
from losslab.errors import LabError, NonFiniteError
from losslab.io import conf_groups
from losslab.losses.adapter.output_kind import ignored_class
from losslab.models.learner import Learner, learner_for
from losslab.runs import RunFolder, resume_checkpoint
from losslab.runs.trust import parse_packages
from losslab.targets import Task
from losslab.training import preflight, weights
from losslab.training.callbacks.checkpoint import find_checkpoint_callback, training_results
from losslab.training.distributed import environment
from losslab.training.global_state import GlobalState, global_state
from losslab.training.instantiate import make, make_data, make_loss, make_partial, translate_errors
from losslab.training.loggers import RunLogger
from losslab.training.network import make_network
from losslab.training.teacher import trusting, with_teacher
from losslab.training.trainer import make_trainer, name_failing_callback, suppress_lightning_noise

logger = logging.getLogger("losslab")


@dataclass
class Experiment:
    """All parts of a run, ready to train."""

    config: dict[str, Any]
    data: ExperimentDataModule
    learner: Learner
    trainer: Trainer
    folder: RunFolder
    state: GlobalState
    """The global state, such as that of the random generators, in which the run starts."""


def build(config: dict[str, Any], *, will_train: bool = True) -> Experiment:
    """Build an experiment from the result of `config.compose` or `RunFolder.read_config`. Write nothing.

    Random generators and other global state are afterwards as before; `run` and `evaluate` use those of the run.

    Only if the experiment `will_train`, optimizer and scheduler are checked, because they may need another device than
    this machine has, and warnings about training are logged.

    Raises:
        LabError: the parts do not fit together, or this machine lacks what the trainer needs.
    """
    with global_state():
        return _build(config, will_train=will_train)


def _build(config: dict[str, Any], *, will_train: bool) -> Experiment:
    trusted = parse_packages(config.get("trust"))
    data = make_data(config["data"])
    data.corrupt([make(group, config[group]) for group in conf_groups.CORRUPTIONS if config.get(group)])
    if config.get("mix"):
        data.enable_mixing(make("mix", config["mix"]))
    seed_all(config["seed"])  # a loss may initialise its parameters at random
    with trusting(trusted):
        loss = make_loss(config["loss"], data.spec.kind, data.spec.targets, warn="all" if will_train else "metrics")
    data.ignore_index = ignored_class(loss)
    ignores_class = data.spec.task is Task.MULTICLASS and data.ignore_index in range(data.spec.targets)
    if will_train and config.get("noise") and ignores_class:
        raise LabError(
            f"noise: it would change labels to class {data.ignore_index}, which the loss ignores (ignore_index): leave "
            "out one of them"
        )
    preflight.check_loss(loss, data.spec)
    preflight.check_trainer(config["trainer"])
    # Seeded again, so that random numbers drawn by the data or the loss do not change the initial weights.
    seed_all(config["seed"])
    network = make_network(config, data.spec, loss)
    if config["scheduler"]["interval"] not in ("step", "epoch"):
        raise LabError(f"scheduler.interval must be step or epoch, got {config['scheduler']['interval']!r}")
    learner = learner_for(data.spec.task)(
        network,
        loss,
        data.spec,
        optimizer=make_partial("optimizer", config["optimizer"]),
        scheduler=make_partial("scheduler.scheduler", config["scheduler"]["scheduler"]),
        interval=config["scheduler"]["interval"],
        seed=config["seed"],
        # Mixed targets are not labels, so no accuracy can be computed from them.
        track_given_labels=bool(config.get("noise")) and not config.get("mix"),
    )
    trainer, folder = make_trainer(config, learner), RunFolder(Path(config["run_dir"]), trusted)
    if will_train:
        preflight.check_optimizer(learner, trainer)
    return Experiment(config, data, learner, trainer, folder, GlobalState.current())


def rebuild(folder: RunFolder, config: dict[str, Any]) -> Experiment:
    """Build the experiment of an existing run, to evaluate it on all of its data. The weights are not loaded.

    Loggers and callbacks are removed, because they write files, and so are limits on batches. Missing data are not
    downloaded, because the URL would come from an untrusted folder.

    Raises:
        LabError: see `build`; or the data have another task, number of targets or class names than in training.
    """
    no_limits: dict[str, Any] = {f"limit_{split}_batches": 1.0 for split in ("train", "val", "test", "predict")}
    no_limits |= {"overfit_batches": 0.0, "fast_dev_run": False, "profiler": None}
    if folder.teacher.is_dir():
        config = with_teacher(str(folder.teacher), config)
    config = config | {"run_dir": str(folder.path), "trainer": config["trainer"] | no_limits}
    experiment = build_on_any_machine(config)
    experiment.data.may_download = False
    experiment.data.expected_manifest = folder.read_faults()
    metadata = folder.read_metadata()
    if metadata is not None:
        experiment.data.training_metadata = DataMetadata.from_json(metadata, folder.metadata)
        experiment.data.training_metadata.check_compatible(experiment.data.spec)
    return experiment


def build_on_any_machine(config: dict[str, Any]) -> Experiment:
    """Build an experiment for one process on any device, without loggers and callbacks. For errors see `build`."""
    trainer = config["trainer"] | {"accelerator": "auto", "devices": 1}
    if str(trainer.get("precision")) in {"16-mixed", "16"} and not torch.cuda.is_available():
        trainer["precision"] = "32-true"
    return build(config | {"callbacks": {}, "logger": {}, "trainer": trainer}, will_train=False)


def evaluate(experiment: Experiment, split: str) -> dict[str, float]:
    """Return the metrics of the learner's current weights on the split "test" or "val".

    A metric that a callback logs under a name that does not start with the split gets the prefix "SPLIT/".
    """
    learner = experiment.learner
    measure = experiment.trainer.test if split == "test" else experiment.trainer.validate
    with global_state(experiment.state), suppress_lightning_noise():
        measure(learner, datamodule=experiment.data, verbose=False)
    values = {name: value for name, value in learner.values.items() if name.startswith(f"{split}/")}
    logged = learner.logged_values().items()
    return values | {name if name.startswith(split) else f"{split}/{name}": value for name, value in logged}


def run(experiment: Experiment, *, resume: bool = False) -> dict[str, float]:
    """Train and test a new run, or resume an existing one. Write the final metrics to metrics.json and return them.

    Raises:
        LabError: the data are missing, the folder contains another run, or training failed.
    """
    is_first = experiment.trainer.is_global_zero
    with runs.lock(experiment.folder.path) if is_first else nullcontext(), global_state(experiment.state):
        resume_point = resume_checkpoint.find_resume_point(experiment.folder, tidy=is_first) if resume else None
        if resume:
            _announce_resume(experiment, resume_point)
        else:
            _check_new_run(experiment)
        _prepare(experiment, resume_point, resume=resume)
        return _train_and_test(experiment, resume_point)


def _announce_resume(experiment: Experiment, resume_point: resume_checkpoint.ResumePoint | None) -> None:
    """Log the step from which the run resumes, and hide the later values in TensorBoard, which are logged again."""
    if experiment.trainer.is_global_zero:
        if resume_point is None:
            logger.warning("resumed     from the beginning: no checkpoint had been written yet")
        else:
            logger.info("resumed     from step %d", resume_point.step)
    for board in experiment.trainer.loggers:
        if isinstance(board, RunLogger):
            board.purge_after(-1 if resume_point is None else resume_point.step)


def _check_new_run(experiment: Experiment) -> None:
    """Raise a LabError if a run would train nothing or erase whole images, or if its folder is in use."""
    config, folder = experiment.config, experiment.folder
    shape = experiment.data.spec.input_shape
    augment, view = experiment.data.augment, getattr(experiment.learner.loss, "view", None)
    if config["train"] and isinstance(augment, Augment) and len(shape) == 3:
        augment.check(*shape[1:])
    if config["train"] and isinstance(view, RandomShift):
        view.check(shape)
    for key in ("max_epochs", "max_steps", "limit_train_batches"):
        if config["train"] and config["trainer"].get(key) == 0:
            raise LabError(f"trainer.{key}=0 trains nothing: set it above 0, or set train=false to test only")
    for file, kind in ((folder.config, "run"), (folder.path / runs.SUMMARY, "sweep")):
        if experiment.trainer.is_global_zero and file.exists():
            raise LabError(f"{folder.path} already contains a {kind}: choose another run_dir")


def _prepare(experiment: Experiment, resume_point: resume_checkpoint.ResumePoint | None, *, resume: bool) -> None:
    """Read the data and do all remaining checks, then write the files that mark the folder as a run.

    A resumed run passed these checks when it started, and its files are not written again.
    """
    config, folder, learner, trainer = experiment.config, experiment.folder, experiment.learner, experiment.trainer
    if config["ckpt_path"] and resume_point is None:
        weights.initialize(learner, Path(config["ckpt_path"]))
    if resume:
        experiment.data.expected_manifest = folder.read_faults()
    experiment.data.prepare_data()
    experiment.data.setup()
    check_data(experiment, resume=resume)
    if config["train"] and not resume:
        check_first_step(experiment)
    if trainer.is_global_zero and not resume:
        if experiment.data.manifest is not None:
            runs.write_json(folder.faults, experiment.data.manifest)
        runs.write_json(folder.metadata, experiment.data.metadata.as_json())
        if config.get("teacher"):
            folder.copy_teacher(RunFolder(Path(config["teacher"])))
        # Last, since config.json marks the folder as a run: a resumed run finds either all of these files or none.
        runs.write_json(folder.config, config | {"made_with": made_with(trainer)})
    if config["compile"]:
        learner.network.compile()  # in place, so that the names in checkpoints do not change


def check_data(experiment: Experiment, *, resume: bool) -> None:
    """Raise a LabError if the data of an experiment are missing, or not those that a resumed run started with."""
    if experiment.trainer.world_size > 1:
        _check_same_data_on_ranks(experiment.data)
    if experiment.config["test"] and not experiment.data.splits["test"].size:
        raise LabError("the split test has no examples with a known label: set test=false to train without a test")
    if resume:
        check_same_data(experiment.folder, experiment.data)


def check_same_data(folder: RunFolder, data: ExperimentDataModule) -> None:
    """Raise a LabError unless the data of a resumed run are those recorded in its data.json."""
    recorded, now = folder.read_metadata(), json.loads(json.dumps(data.metadata.as_json()))
    # The normalisation statistics may differ in the last digit on another machine, and early versions recorded no
    # background, which is compared as part of the configuration.
    ignored = {"normalise": None, "background": None, "contents": None}
    if recorded is None:
        return
    contents = recorded.get("contents") or now["contents"]
    if recorded | ignored != now | ignored or not _are_close(contents, now["contents"]):
        raise LabError(
            f"the data are not those that {folder.path} was trained on so far "
            f"(recorded in {folder.metadata}): set data.dir to the original data, or start a new run"
        )


def _check_same_data_on_ranks(data: ExperimentDataModule) -> None:
    """Raise a LabError on all ranks if they have read different data."""
    contents = [data.metadata.contents] * distributed.get_world_size()
    distributed.all_gather_object(contents, contents[0])
    if not all(_are_close(contents[0], each) for each in contents):
        raise LabError(
            "data: each process has read other data: load() must return the same examples in each call, so draw them "
            "with a seed"
        )


def _are_close(contents: Any, other: Any) -> bool:
    """Compare `DataMetadata.contents`, whose last digits may differ on another machine."""
    return contents.keys() == other.keys() and all(
        math.isclose(one, two, rel_tol=1e-5, abs_tol=1e-7)
        for split, values in contents.items()
        for one, two in zip(values, other[split], strict=True)
    )


def check_first_step(experiment: Experiment) -> None:
    """Check the schedule and the first batch of a new run, whose data are set up, and log warnings.

    Raises:
        LabError: training would fail or have no effect.
    """
    config, data, learner, trainer = experiment.config, experiment.data, experiment.learner, experiment.trainer
    device = trainer.strategy.root_device
    batches = preflight.limited_batches(trainer, len(data.train_dataloader()))
    preflight.check_schedule(learner, trainer, batches)
    preflight.check_averaging(trainer, batches)
    sync = bool(config["trainer"].get("sync_batchnorm")) and device.type == "cuda"
    if trainer.world_size > 1 and not sync:
        preflight.check_batch_norm(learner.network)
    if config.get("examine", True):  # configurations of early versions lack this key
        for sentence in find_degenerate(data.splits, data.spec):
            logger.warning("%s", sentence)
        preflight.examine_first_batch(learner, data, trainer)
    preflight.check_last_batch(learner, data, trainer, sync=sync)


def made_with(trainer: Trainer) -> dict[str, str]:
    """Return the versions of losslab and its libraries, and the device: they may change the last digits of results."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"losslab": __version__, "torch": torch.__version__, "lightning": lightning.__version__, "device": name}


def _train_and_test(experiment: Experiment, resume_point: resume_checkpoint.ResumePoint | None) -> dict[str, float]:
    """Train from the resume point, or from the start if it is None, and test the best weights."""
    config, folder, learner, trainer = experiment.config, experiment.folder, experiment.learner, experiment.trainer
    results: dict[str, float] = {}
    with suppress_lightning_noise(), translate_errors("trainer"), name_failing_callback():
        if resume_point is not None and resume_point.results is not None:  # training had finished
            results |= resume_point.results
            weights.load(learner, resume_point.path)
        elif config["train"]:
            path = None if resume_point is None else resume_point.path
            try:
                with resume_checkpoint.explain_mismatch(resume_point, trainer):
                    trainer.fit(learner, datamodule=experiment.data, ckpt_path=path, weights_only=True)
            except NonFiniteError as error:
                if error.on_all_ranks:
                    environment.barrier_before_exit()
                raise
            if trainer.global_step == 0:
                raise LabError(
                    "training ended before the first step: increase trainer.max_time, or the callback's limit"
                )
            results |= training_results(trainer, learner)
        if config["test"]:
            if "best_epoch" in results:
                trainer.strategy.barrier()  # rank 0 writes the best checkpoint, the other ranks read it
                checkpoints = find_checkpoint_callback(trainer)
                weights.load(learner, folder.best, checkpoints.take_best_weights() if checkpoints else None)
            results |= evaluate(experiment, "test")
    if trainer.is_global_zero:
        runs.write_json(folder.metrics, results)
    return results


def seed_all(seed: Any) -> None:
    """Seed all random generators. Raise a LabError unless the seed is an integer that they accept."""
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise LabError(f"seed must be an integer from 0 to {2**32 - 1}, got {seed!r}")
    seed_everything(seed, verbose=False)
