"""`python train.py resume=FOLDER`: resume a run as if it had not been interrupted, or complete a sweep."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.utils import configure_log
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from losslab import CONF, runs
from losslab.cli import run
from losslab.cli.process import (
    add_working_directory_to_path,
    imports_without_gc,
    leave,
    one_line_errors,
    run_and_leave,
)
from losslab.errors import LabError
from losslab.io.terminal import ignore_output_errors
from losslab.io.untrusted import check_folder, find_unknown_interpolation, read_yaml
from losslab.runs import RunFolder, trust
from losslab.runs.config import CHANGEABLE_ON_RESUME, find_problem
from losslab.runs.trust import check_targets, check_write_paths
from losslab.sweep import display, recorded
from losslab.sweep.job import log_failure
from losslab.sweep.resume import FLAGS, refuse_other_keys
from losslab.training.config import ProcessContext, register, resolve
from losslab.training.distributed import environment, spawn, worker

logger = logging.getLogger("losslab")


def resume(arguments: Sequence[str]) -> NoReturn:
    """Resume the run or complete the sweep on the command line, and exit."""
    show_all = "traceback=true" in arguments
    settings = dict(argument.partition("=")[::2] for argument in arguments if argument not in FLAGS)
    path = Path(settings.pop("resume"))
    with one_line_errors(show_all=show_all):
        packages = settings.pop("trust", "").removeprefix("[").removesuffix("]").split(",")
        trusted = trust.parse_packages([package.strip() for package in packages if package.strip()])
    if trusted:
        add_working_directory_to_path()
    if recorded.is_sweep(path):
        context = ProcessContext()
        run_and_leave(
            lambda: _complete(path, settings, trusted, context),
            lambda: display.close(context.sweep),
            show_all=show_all,
        )
    register()
    settings |= {flag: "" for flag in FLAGS if flag in arguments}  # a run is no sweep
    with one_line_errors(show_all=show_all):
        _resume(RunFolder(path, trusted), settings)
    leave(0)


def _complete(path: Path, settings: Mapping[str, str], trusted: Sequence[str], context: ProcessContext) -> None:
    keys = (*CHANGEABLE_ON_RESUME, "hydra.launcher.n_jobs")
    again = f"type the command of the sweep again with run_dir={runs.display_path(path)}"
    refuse_other_keys(settings, keys, "completes a sweep", again)
    configure_log(OmegaConf.load(CONF / "hydra" / "hydra_logging" / "losslab.yaml"))  # type: ignore[arg-type]
    logger.info("sweep folder  %s", runs.display_path(path.absolute()))
    recorded.complete(path, _train_job, context, changes=settings, trusted=trusted)


def _train_job(config: dict[str, Any], resumes: bool) -> float | None:
    """Train a job of a sweep in one of its processes."""
    ignore_output_errors()
    _configure_logging(RunFolder(Path(config["run_dir"])), console=False)
    try:
        return run.run(config, resume=resumes, from_folder=True)
    except BaseException as error:
        log_failure(error, traceback=config.get("traceback") is True)
        raise


def _resume(folder: RunFolder, settings: Mapping[str, str]) -> None:
    if not folder.path.is_dir():
        raise LabError(f"resume={folder.path}: there is no such folder")
    new = f"start a new run from its weights with ckpt_path={runs.display_path(folder.last)}"
    refuse_other_keys(settings, CHANGEABLE_ON_RESUME, "continues a run", new)
    config, started = read_configuration(folder, settings)
    rank, world_size = environment.current_rank().rank, environment.current_rank().world_size
    if rank == 0:
        _configure_logging(folder)
    elif not worker.is_worker():
        logging.getLogger().setLevel(logging.ERROR)  # rank 0 logs for all
    if folder.metrics.is_file():
        logger.info("%s is finished: there is nothing to resume", runs.display_path(folder.path))
        return
    try:
        processes = (
            environment.requested_processes(config["trainer"], lambda: len(spawn.visible_gpus()))
            if world_size == 1
            else 1
        )
        if processes > 1:
            run.run_in_processes(_rank, (config, started), processes)
        else:
            run.run(config, resume=started, from_folder=True)
    except LabError as error:
        if config.get("traceback"):
            raise
        run.log_refusal(error)
        leave(1)


def _rank(config: dict[str, Any], started: bool) -> float | None:
    _configure_logging(RunFolder(Path(config["run_dir"])))
    return run.run(config, resume=started, from_folder=True)


def read_configuration(folder: RunFolder, settings: Mapping[str, str] | None = None) -> tuple[dict[str, Any], bool]:
    """Read and check the configuration of a run to resume.

    A run that was killed before it wrote config.json has computed nothing: it starts with the configuration that Hydra
    composed.

    Args:
        folder: the run folder.
        settings: the settings to change, by config key.

    Returns:
        The resolved configuration for the current location of the folder, and whether the run had started.

    Raises:
        LabError: there is no configuration, or it contains a `_target_` or a path that is not allowed.
    """
    with imports_without_gc():  # the check of a `_target_` imports its module
        started = folder.config.exists()
        config = folder.read_config() if started else _read_composed(folder)
        config = recorded.relocate(config, folder.path)
        recorded.change(config, settings or {})
        config["trust"] = list(folder.trusted)  # never from the folder
        check_targets(config, folder.path, folder.trusted)  # again, since it was changed; it is not changed after this
    check_write_paths(config, folder.path, folder.trusted)
    check_folder(folder.path)
    return config, started


def _read_composed(folder: RunFolder) -> dict[str, Any]:
    source = folder.path / ".hydra" / "config.yaml"
    try:
        plain = read_yaml(source)
        choices = read_yaml(source.with_name("hydra.yaml"))["hydra"]["runtime"]["choices"]
        plain.pop("trust", None)
        interpolation = find_unknown_interpolation(plain)
        named = all(isinstance(choice, str | None) for choice in choices.values())
        named &= all(choices[group] for group in ("model", "data", "loss"))
    except Exception as error:  # the file is missing, or incomplete because the run was killed
        if runs.find_runs([folder.path]).runs:
            folder.read_config()  # raises: not a run folder, but it contains runs
        raise LabError(f"{folder.path} contains no started run: delete it and start the run again") from error
    if interpolation is not None or not named:
        reason = "the choices of groups are not names" if not named else f"it contains {ascii(interpolation)[:80]}"
        raise LabError(f"{source} is untrusted and is not resolved ({reason}): start the run again")
    try:
        config = resolve(OmegaConf.create(plain), choices, str(folder.path))
    except OmegaConfBaseException as error:
        raise LabError(f"{source} cannot be resolved ({str(error).splitlines()[0]}): start the run again") from error
    problem = find_problem(config)
    if problem is not None:
        raise LabError(f"{source} is not the configuration of a run ({problem}): start the run again")
    check_targets(config, source, folder.trusted)
    return config


def _configure_logging(folder: RunFolder, *, console: bool = True) -> None:
    """Append log messages to the run's train.log with the settings in losslab's conf/; only on rank 0.

    Raises:
        LabError: train.log is not a regular file.
    """
    if environment.current_rank().rank > 0:
        logging.getLogger().addHandler(logging.NullHandler())
        return
    file = folder.path / "train.log"
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise LabError(f"{file} is not a regular file, but the run would write to it: remove it")
    config: Any = OmegaConf.load(CONF / "hydra" / "job_logging" / "losslab.yaml")
    config.handlers.file.filename = str(file)
    if not console:
        config.root.handlers = ["file"]
    configure_log(config)
