"""`losslab train` and `python train.py`: train a run, run a sweep with -m, or continue either with resume=FOLDER."""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from losslab import CONF, runs
from losslab.cli import run
from losslab.cli.hydra_errors import quote_texts
from losslab.cli.process import add_working_directory_to_path, exit_now, fast_imports, one_line_errors
from losslab.errors import LabError
from losslab.io import conf_groups
from losslab.io.terminal import ignore_output_errors
from losslab.io.untrusted import check_folder, find_unknown_interpolation, read_yaml
from losslab.runs import RunFolder, trust
from losslab.runs.config import CHANGEABLE_ON_RESUME, find_problem
from losslab.runs.sweep_summary import State
from losslab.sweep import recorded
from losslab.sweep.launcher import log_failure
from losslab.sweep.resume import FLAGS
from losslab.training.config import ProcessContext, register, resolve
from losslab.training.distributed import environment, worker

logger = logging.getLogger("losslab")


def train(context: ProcessContext | None = None) -> None:
    """Train the run or sweep in sys.argv, or continue one."""
    ignore_output_errors()
    # Flags first: before Python 3.12, argparse rejects overrides on both sides of a flag (`loss=mse -m seed=0,1`).
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in FLAGS)
    context, arguments = context or ProcessContext(), sys.argv[1:]
    if any(argument.startswith("resume=") for argument in arguments):
        show_tracebacks = "traceback=true" in arguments
        run.run_and_exit(lambda: _resume(arguments, context), context, show_tracebacks=show_tracebacks)  # never returns
    add_working_directory_to_path()
    register(context)
    with one_line_errors(show_tracebacks=False):
        sys.argv[1:] = quote_texts(arguments)
    # Hydra prints an error over several lines. With HYDRA_FULL_ERROR it raises the error instead.
    show_tracebacks = os.environ.get("HYDRA_FULL_ERROR", "0") != "0" or "traceback=true" in sys.argv
    os.environ["HYDRA_FULL_ERROR"] = "1"
    run.run_and_exit(lambda: _hydra_main(context), context, show_tracebacks=show_tracebacks)


def _hydra_main(context: ProcessContext) -> None:
    try:
        hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(HydraTask(context))()
    except BaseException as error:
        if context.sweep is None:  # no job was started
            if context.new_sweep_folder is not None:
                runs.discard_sweep(context.new_sweep_folder, context.claimed)
        elif isinstance(error, ValueError) and not context.sweep.count(State.DONE):
            sys.exit(1)  # the sweeper raised this ValueError because no job succeeded
        raise


class HydraTask:
    """The task function of Hydra, which trains a run or a job of a sweep.

    Pickling leaves out its context, because each process has its own.
    """

    def __init__(self, context: ProcessContext | None = None) -> None:
        self.context = context or ProcessContext()

    def __reduce__(self) -> tuple[type["HydraTask"], tuple[()]]:
        return HydraTask, ()

    def __call__(self, cfg: DictConfig) -> float | None:
        """Train the run that Hydra composed, and return the value that a sweeper optimises."""
        runtime = HydraConfig.get().runtime
        rank = environment.current_rank()
        try:
            folders = conf_groups.source_folders(runtime.config_sources)
            config = resolve(cfg, runtime.choices, runtime.output_dir, folders)
            if rank.rank > 0 and not worker.is_worker():
                logging.getLogger().setLevel(logging.ERROR)  # only rank 0 logs messages
            is_single = HydraConfig.get().mode is RunMode.RUN and rank.world_size == 1
            if runtime.choices.get("trainer") == "slurm" and is_single:
                logger.warning("trainer=slurm submits a job only with -m: this run trains on this machine")
            processes = run.processes_to_start(config)
            if processes > 1:
                return run.run_in_processes(_train_rank, (HydraConfig.instance().cfg, cfg), processes)
            return run.run(config, resume=self.context.resumes)
        except LabError as error:
            if cfg.traceback or worker.is_worker():
                raise
            log_failure(error)
            if HydraConfig.get().mode is not RunMode.RUN:
                raise  # a sweep continues, keeps the folder of the failed job, and reports it at the end
            if rank.rank == 0:
                runs.discard(Path(runtime.output_dir), self.context.claimed)
            exit_now(1)


def _train_rank(hydra_cfg: DictConfig, cfg: DictConfig) -> float | None:
    """Train a run as one of its ranks, in a new process."""
    task = HydraTask()
    register(task.context)
    setup_globals()
    HydraConfig.instance().cfg = hydra_cfg  # type: ignore[assignment]
    if environment.current_rank().rank == 0:
        configure_log(hydra_cfg.hydra.job_logging, hydra_cfg.hydra.verbose)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
    return task(cfg)


def _resume(arguments: Sequence[str], context: ProcessContext) -> None:
    settings = dict(argument.partition("=")[::2] for argument in arguments)
    path = Path(settings.pop("resume")).expanduser()
    packages = settings.pop("trust", "").removeprefix("[").removesuffix("]").split(",")
    trusted = trust.parse_packages([package.strip() for package in packages if package.strip()])
    if trusted:
        add_working_directory_to_path()
    study = next((folder for folder in (path, path.parent) if (folder / runs.STUDY).is_file()), None)
    if study is not None:
        raise LabError(f"{path} belongs to a study: continue it with losslab study resume={runs.display_path(study)}")
    if not recorded.is_sweep(path):
        register()
        _resume_run(RunFolder(path, trusted), settings)
        return
    for flag in FLAGS:
        settings.pop(flag, None)  # a sweep may be completed with or without -m
    alternative = f"type the command of the sweep again with run_dir={runs.display_path(path)}"
    _refuse_other_keys(settings, (*CHANGEABLE_ON_RESUME, "hydra.launcher.n_jobs"), "completes a sweep", alternative)
    configure_log(OmegaConf.load(CONF / "hydra" / "hydra_logging" / "losslab.yaml"))  # type: ignore[arg-type]
    logger.info("sweep folder  %s", runs.display_path(path.absolute()))
    recorded.complete(path, _train_job, context, changes=settings, trusted=trusted)


def _refuse_other_keys(settings: Mapping[str, str], allowed: Sequence[str], purpose: str, alternative: str) -> None:
    """Raise a LabError if a setting next to resume= is not allowed to change. The message ends with `alternative`."""
    key = next((key for key in settings if key not in allowed), None)
    if key is not None:
        raise LabError(
            f"resume= {purpose} with its recorded settings; {key} cannot be changed (only {', '.join(allowed)} can): "
            f"leave it out, or {alternative}"
        )


def _train_job(config: dict[str, Any], resumes: bool) -> float | None:
    """Train a job of a sweep that resume= completes, in one of the processes of the job."""
    _configure_logging(RunFolder(Path(config["run_dir"])), console=False)
    try:
        return run.run(config, resume=resumes, from_folder=True)
    except BaseException as error:
        log_failure(error, traceback=config.get("traceback") is True)
        raise


def _resume_run(folder: RunFolder, settings: Mapping[str, str]) -> None:
    """Resume a run, in this process or in new ones. `settings` maps the config keys to change to their new values."""
    if not folder.path.is_dir():
        raise LabError(f"resume={folder.path}: there is no such folder")
    alternative = f"start a new run from its weights with ckpt_path={runs.display_path(folder.path)}"
    _refuse_other_keys(settings, CHANGEABLE_ON_RESUME, "continues a run", alternative)
    config, started = read_configuration(folder, settings)
    if environment.current_rank().rank == 0:
        _configure_logging(folder)
    else:
        logging.getLogger().setLevel(logging.ERROR)  # only rank 0 logs messages
    if folder.metrics.is_file():
        logger.info("%s is finished: there is nothing to resume", runs.display_path(folder.path))
        return
    try:
        processes = run.processes_to_start(config)
        if processes > 1:
            run.run_in_processes(_resume_rank, (config, started), processes)
        else:
            run.run(config, resume=started, from_folder=True)
    except LabError as error:
        if config.get("traceback"):
            raise
        log_failure(error)
        exit_now(1)


def _resume_rank(config: dict[str, Any], started: bool) -> float | None:
    _configure_logging(RunFolder(Path(config["run_dir"])))
    return run.run(config, resume=started, from_folder=True)


def read_configuration(folder: RunFolder, settings: Mapping[str, str] | None = None) -> tuple[dict[str, Any], bool]:
    """Read, adapt and check the configuration of a run to resume. Return it, and whether the run has config.json.

    Without config.json, because the run was killed early, the configuration that Hydra composed is read instead. Paths
    of the run folder are replaced by its current path, and `settings` maps config keys to new values.

    Raises:
        LabError: there is no configuration, or it contains a `_target_` or a path that is not allowed.
    """
    with fast_imports():  # check_targets imports torch
        started = folder.config.exists()
        config = folder.read_config() if started else _read_composed(folder)
        config = recorded.relocate(config, folder.path)
        recorded.change(config, settings or {})
        config["trust"] = list(folder.trusted)  # never the packages that the folder names
        # read_config has checked the targets, but the configuration was changed since. It is not changed below.
        trust.check_targets(config, folder.path, folder.trusted)
    trust.check_write_paths(config, folder.path, folder.trusted)
    check_folder(folder.path)
    return config, started


def _read_composed(folder: RunFolder) -> dict[str, Any]:
    """Read and resolve the configuration that Hydra composed for a run."""
    source = folder.composed
    try:
        plain = read_yaml(source)
        choices = read_yaml(source.with_name("hydra.yaml"))["hydra"]["runtime"]["choices"]
        plain.pop("trust", None)
        interpolation = find_unknown_interpolation(plain)
        has_names = all(isinstance(choice, str | None) for choice in choices.values())
        has_names &= all(choices[group] for group in ("model", "data", "loss"))
    except Exception as error:  # the file is missing, or incomplete because the run was killed
        if runs.find_runs([folder.path]).runs:
            folder.read_config()  # raises a LabError that lists these runs
        advice = "check the path, or start the run again"
        raise LabError(f"{folder.path} is not the folder of a started run: {advice}") from error
    if interpolation is not None or not has_names:
        reason = f"it contains {ascii(interpolation)[:80]}" if has_names else "a group has a choice that is not a name"
        raise LabError(f"{source} is untrusted and was not resolved ({reason}): start the run again")
    try:
        config = resolve(OmegaConf.create(plain), choices, str(folder.path))
    except OmegaConfBaseException as error:
        raise LabError(f"{source} cannot be resolved ({str(error).splitlines()[0]}): start the run again") from error
    problem = find_problem(config)
    if problem is not None:
        raise LabError(f"{source} is not the configuration of a run ({problem}): start the run again")
    trust.check_targets(config, source, folder.trusted)
    return config


def _configure_logging(folder: RunFolder, *, console: bool = True) -> None:
    """Append the log messages of rank 0 to the run's train.log, with the settings in conf/hydra/job_logging.

    Raises:
        LabError: train.log is not a regular file.
    """
    if environment.current_rank().rank > 0:
        logging.getLogger().addHandler(logging.NullHandler())
        return
    file = folder.log
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise LabError(f"{file} is not a regular file, but the run would write to it: remove it")
    config: Any = OmegaConf.load(CONF / "hydra" / "job_logging" / "losslab.yaml")
    config.handlers.file.filename = str(file)
    if not console:
        config.root.handlers = ["file"]
    configure_log(config)
