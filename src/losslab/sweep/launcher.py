"""The Hydra launcher for `-m`: composes the jobs, and runs each in processes of its own. Imports no torch."""

import contextlib
import copy
import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, run_job, setup_globals
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher as HydraLauncher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from losslab import runs
from losslab.errors import LabError, message_of
from losslab.io.terminal import ignore_output_errors, print_traceback, printable
from losslab.runs.sweep_summary import State
from losslab.sweep.composing import Composer, YamlWriter, with_value
from losslab.sweep.fusing import parse_fuse
from losslab.sweep.job_scheduler import JobLimits, run_jobs
from losslab.sweep.resume import ExistingRuns, find_unfinished
from losslab.sweep.state import Fuse, Job, JobCall, Sweep
from losslab.training.config import ProcessContext, default_run_name, register, resolve
from losslab.training.distributed import environment, spawn
from losslab.training.interpolations import is_interpolation

logger = logging.getLogger("losslab")

_SUBDIR = "${hydra:job.num}-${run_name:null}"
"""The value of hydra.sweep.subdir in conf/train.yaml."""
_OUTPUT_SUBDIR = "${on_first_rank:.hydra,null}"
"""The value of hydra.output_subdir in conf/train.yaml."""


class Launcher(HydraLauncher):
    """Runs `n_jobs` jobs of a sweep at a time (see `JobLimits`). If one job fails, the others continue.

    With `fuse`, jobs that differ only in numbers train as one (see `fusing`).
    """

    def __init__(self, n_jobs: int | None = None, fuse: Fuse = None) -> None:
        self.n_jobs = JobLimits(n_jobs).n_jobs  # checked before the folder of the sweep is created
        self.fuse = parse_fuse(fuse)
        self._existing: ExistingRuns | None = None
        self._yaml = YamlWriter()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the objects that Hydra passes to a launcher.

        A sweeper composes each job before the launch, to validate it. It gets the same fast function as the launch.
        """
        self._composer = Composer(hydra_context.config_loader.load_sweep_config, config)
        self._hydra_context = dataclasses.replace(hydra_context)  # for the processes of the jobs
        self._task, self._config = task_function, config
        sweeper = str(OmegaConf.select(config, "hydra.sweeper._target_"))
        self._is_basic, self._is_study = sweeper.endswith(".BasicSweeper"), sweeper.endswith(".StudySweeper")
        self._context: ProcessContext = task_function.context  # type: ignore[attr-defined]
        hydra_context.config_loader = copy.copy(hydra_context.config_loader)
        hydra_context.config_loader.load_sweep_config = self._load_sweep_config  # type: ignore[method-assign]

    def _load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:  # noqa: ARG002
        if self._is_basic:  # it only checks that the job can be composed
            return self._composer.compose(sweep_overrides, with_hydra=False)
        return self._composer.compose(sweep_overrides)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs and return their results in order. A sweeper may call this again with more jobs."""
        config = self._config
        setup_globals()
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
        sweep: Sweep | None = self._context.sweep
        if sweep is None:
            is_search = not self._is_basic or OmegaConf.select(config, "hydra.sweeper.max_batch_size") is not None
            sweep = self._open_sweep(Path(config.hydra.sweep.dir).absolute(), is_search=is_search)
        spawn.process_context()  # imports torch in the forkserver while the jobs are composed
        jobs = sweep.add(job_overrides, initial_job_idx, list(config.hydra.overrides.task))
        for job in jobs:
            self._prepare(job, sweep)
        run_jobs(sweep, jobs, self._prepare, self._existing, self._context)
        self._check_direction(jobs)
        # Hydra's basic sweeper would stop at the first reported failure. The final table reports failures instead.
        return [self._result(job, sweep, report_failure=not self._is_basic) for job in jobs]

    def _open_sweep(self, folder: Path, *, is_search: bool) -> Sweep:
        """Create a sweep and lock its folder. If the folder contains an earlier sweep, find the runs in it."""
        sweep = Sweep(folder, sys.argv[1:], is_search=is_search, n_jobs=self.n_jobs, fuse=self.fuse)
        sweep.unfusable = _why_unfusable(self._config.hydra)
        sweep.lock()
        summary = folder / runs.SUMMARY
        unfinished = None
        if summary.is_file() and summary.stat().st_size > 0:
            try:
                self._existing = ExistingRuns(folder, keeps_diverged=self._is_study)
            except LabError as error:
                raise LabError(f"{error}: set run_dir to another folder") from error
        else:
            unfinished = find_unfinished(folder, sweep.command)
        logger.info("sweep folder  %s", runs.display_path(folder))
        if unfinished is not None:
            path = runs.display_path(unfinished)
            logger.info("unfinished    another sweep of the same command; resume=%s completes it", path)
        return sweep

    def _prepare(self, job: Job, sweep: Sweep, folder: Path | None = None) -> None:
        """Compose a job that runs in `folder`, by default a folder named after its number and configuration.

        If composing fails, the error is stored in `job.reason`, and the job fails as soon as the scheduler starts it.
        """
        job.task = job.config = None
        try:
            template, parts = self._composer.template(job.overrides)
            task = self._composer.compose(job.overrides, with_hydra=False)
            plain, _ = template.plain(parts)
            _check_seed(task)
            context: Any = contextlib.nullcontext()
            name, subdir = template.hydra["job"]["name"], template.hydra["sweep"]["subdir"]
            if subdir == _SUBDIR and not template.refers_to_hydra and not is_interpolation(name):
                if folder is None:
                    run_name = default_run_name(task, template.choices, template.folders, plain)
                    folder = sweep.folder / f"{job.number}-{run_name}"
            else:
                config = self._compose(job, sweep)
                with _hydra_config(config):
                    folder = folder or sweep.folder / str(config.hydra.sweep.subdir)
                    name = config.hydra.job.name
                context = _hydra_config(self._compose(job, sweep, folder))
            arguments = partial(self._arguments, job, sweep, folder)
            write_files = partial(self._write_hydra_files, job, sweep, folder)
            job.task = JobCall(run_composed, arguments, task.trainer, folder / f"{name}.log", write_files)
            with context:
                job.config = resolve(task, template.choices, str(folder), template.folders, plain)
            job.task = job.task._replace(trainer=job.config["trainer"])
        except (LabError, CompactHydraException, OmegaConfBaseException) as error:
            job.reason = message_of(error)

    def _compose(self, job: Job, sweep: Sweep, folder: Path | None = None) -> DictConfig:
        """Return the configuration of a job with the key `hydra`; `folder` is the folder in which it will run."""
        config = self._composer.compose(job.overrides)
        handlers: Any = OmegaConf.select(config, "hydra.job_logging.root.handlers")
        with read_write(config), open_dict(config):
            for key, value in _job_settings(job, sweep, folder, handlers).items():
                OmegaConf.update(config.hydra, key, value, merge=False)
        return config

    def _arguments(self, job: Job, sweep: Sweep, folder: Path) -> tuple[Any, ...]:
        """Return the arguments of `run_composed`, except the last."""
        return self._hydra_context, self._task, self._compose(job, sweep, folder)

    def _write_hydra_files(self, job: Job, sweep: Sweep, folder: Path) -> None:
        """Write the folder .hydra of a job that trains in a group. Hydra does it for a job in its own process."""
        template, parts = self._composer.template(job.overrides)
        task, hydra = template.plain(parts)
        output = hydra["output_subdir"]
        if is_interpolation(output):
            output = ".hydra" if output == _OUTPUT_SUBDIR else self._compose(job, sweep, folder).hydra.output_subdir
        if output is None:
            return
        handlers = ((hydra["job_logging"] or {}).get("root") or {}).get("handlers")
        for key, value in _job_settings(job, sweep, folder, handlers).items():
            hydra = with_value(hydra, key, value)
        (folder / output).mkdir(parents=True, exist_ok=True)
        contents: dict[str, Any] = {
            "config.yaml": task,
            "hydra.yaml": {"hydra": hydra},
            "overrides.yaml": job.overrides,
        }
        for name, content in contents.items():
            (folder / output / name).write_text(self._yaml.format(content), encoding="utf-8")

    def _result(self, job: Job, sweep: Sweep, *, report_failure: bool) -> JobReturn:
        """Return the result of a job for the sweeper. Without `report_failure`, a failed job counts as completed."""
        failed = report_failure and job.state is not State.DONE
        result = (_ReportedFailure if failed else _Result)(
            overrides=job.overrides,
            working_dir=str(Path.cwd()),
            task_name=None if job.task is None else job.task.log.stem,
            status=JobStatus.FAILED if failed else JobStatus.COMPLETED,
            _return_value=LabError(job.reason) if failed else job.value,
        )
        if job.task is not None:
            result.compose = partial(self._compose, job, sweep, job.task.log.parent)
        return result

    def _check_direction(self, jobs: list[Job]) -> None:
        """Refuse a search for the worst value. Optuna minimizes by default, but a higher accuracy is better."""
        direction = OmegaConf.select(self._config, "hydra.sweeper.direction")
        direction = getattr(direction, "name", direction)
        if self._config.optimized_metric is not None or direction not in {"minimize", "maximize"}:
            return
        for progress in (job.progress for job in jobs if "mode" in job.progress):
            correct = {"min": "minimize", "max": "maximize"}[progress["mode"]]
            if correct != direction:
                worst = f"hydra.sweeper.direction={direction} would search for the worst {progress['metric']}"
                raise LabError(f"{worst}: set it to {correct}")


def _why_unfusable(hydra: DictConfig) -> str | None:
    """Return which setting of Hydra needs a process for each job; None if there is none."""
    if hydra.callbacks:
        return "hydra.callbacks"
    if hydra.job.chdir:
        return "hydra.job.chdir=true"
    return "hydra.job.env_set" if hydra.job.env_set else None


def _check_seed(config: DictConfig) -> None:
    """Raise a LabError if the seed, which is a part of the folder's name, is no integer."""
    if not isinstance(config.seed, int):
        raise LabError(f"seed must be an integer, got {config.seed!r}")


def _job_settings(job: Job, sweep: Sweep, folder: Path | None, handlers: Sequence[str] | None) -> dict[str, Any]:
    """Return the settings of Hydra for one job by key, except those that Hydra sets when it composes the job."""
    settings: dict[str, Any] = {
        "job.id": str(job.number),
        "job.num": job.number,
        "sweep.dir": str(sweep.folder),  # resolved here once, not in each process
    }
    if folder is not None:
        settings |= {"sweep.subdir": os.path.relpath(folder, sweep.folder), "runtime.output_dir": str(folder)}
    if {"console", "file"} <= set(handlers or []):  # stdout is written to the same file
        settings["job_logging.root.handlers"] = [name for name in handlers or [] if name != "console"]
    return settings


class _Result(JobReturn):
    """The result of a job, whose configuration is composed only if it is read, since that takes time for many jobs."""

    compose: Callable[[], DictConfig] | None = None

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        del self.cfg, self.hydra_cfg  # otherwise they would hide the properties

    @cached_property
    def cfg(self) -> DictConfig | None:  # type: ignore[override]
        config = None if self.compose is None else self.compose()
        return config and OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])

    @cached_property
    def hydra_cfg(self) -> DictConfig | None:  # type: ignore[override]
        config = None if self.compose is None else self.compose()
        return config and OmegaConf.create({"hydra": config.hydra})


class _ReportedFailure(_Result):
    """The result of a failed job. `return_value` does not print the failure, which is logged already."""

    @property  # type: ignore[misc]  # the parent also has a setter
    def return_value(self) -> NoReturn:
        raise self._return_value


@contextmanager
def _hydra_config(config: DictConfig) -> Iterator[None]:
    """Let ${hydra:...} refer to the job with this configuration."""
    before, HydraConfig.instance().cfg = HydraConfig.instance().cfg, config  # type: ignore[assignment]
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def run_composed(context: HydraContext, task: TaskFunction, config: DictConfig, resumes: bool) -> Any:
    """Run or resume a composed job in one of its processes, and return the result of Hydra's task function."""
    ignore_output_errors()
    first = environment.current_rank().rank == 0
    task.context.resumes = resumes  # type: ignore[attr-defined]
    register(task.context)  # type: ignore[attr-defined]
    setup_globals()
    Singleton._instances.pop(HydraConfig, None)  # noqa: SLF001
    JobRuntime.instance().set("name", config.hydra.job.name)
    if resumes or not first:  # .hydra/ exists already
        with read_write(config), open_dict(config):
            config.hydra.output_subdir = None
    if not first:
        context.callbacks.callbacks = []  # only rank 0 calls the user's Hydra callbacks
        logging.getLogger().addHandler(logging.NullHandler())
    result = run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", context, configure_logging=first)
    if result.status is JobStatus.COMPLETED:
        return result.return_value
    error: BaseException = result._return_value  # noqa: SLF001 -- the public attribute also writes to stderr
    log_failure(error, traceback=config.traceback)
    raise error


def log_failure(error: BaseException, *, traceback: bool = False) -> None:
    """Log the error that ends a process. A LabError is logged in one line unless `traceback`; others as a traceback."""
    rank = environment.current_rank().rank
    if not isinstance(error, LabError) or traceback:
        print_traceback(error)  # the stderr of a job is written to its log
    elif rank == 0:
        logger.error("%s", error)
    else:
        sys.stderr.write(printable(f"rank {rank}: {error}\n"))
