"""Composing jobs with Hydra, and running a composed job in each of its processes. Imports no torch."""

import copy
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime, JobStatus, run_job, setup_globals
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from losslab.errors import LabError
from losslab.io.terminal import ignore_output_errors, print_traceback, printable
from losslab.sweep.state import Job, JobCall, Sweep
from losslab.training.config import register, resolve
from losslab.training.distributed import environment

logger = logging.getLogger("losslab")

_REFUSED = (LabError, CompactHydraException, OmegaConfBaseException)


class HydraJobs:
    """Composes the jobs of a sweep.

    Args:
        context: the context of Hydra.
        task: the task function of Hydra. `task.context` is the ProcessContext of its process.
        compose: a function that composes the configuration of a job from its overrides.
    """

    def __init__(
        self, context: HydraContext, task: TaskFunction, compose: Callable[[Sequence[str]], DictConfig]
    ) -> None:
        self.context, self.task, self.compose = context, task, compose

    def prepare(self, job: Job, sweep: Sweep, folder: Path | None = None) -> None:
        """Compose a job that runs in `folder`, by default a folder named after its number and configuration.

        A composition error is stored; the job fails with it when it is scheduled.
        """
        job.task = job.config = None
        try:
            if job.composed is None or job.composed.hydra.job.num != job.number:
                job.composed = self._compose(job, sweep)
            config: DictConfig = job.composed
            with read_write(config), open_dict(config):
                if folder is None:
                    with _hydra_config(config):
                        folder = sweep.folder / str(config.hydra.sweep.subdir)
                config.hydra.sweep.subdir = os.path.relpath(folder, sweep.folder)
                config.hydra.runtime.output_dir = str(folder)
            job.task = JobCall(
                run_composed, (self.context, self.task, config), config.trainer, folder / f"{config.hydra.job.name}.log"
            )
            job.config = _resolved(config)
        except _REFUSED as error:
            job.reason = " ".join(str(error).split())

    def _compose(self, job: Job, sweep: Sweep) -> DictConfig:
        config = self.compose(job.overrides)
        with read_write(config), open_dict(config):
            config.hydra.job.id = config.hydra.job.num = job.number
            config.hydra.sweep.dir = str(sweep.folder)  # resolved here once, not in each process
            handlers = OmegaConf.select(config, "hydra.job_logging.root.handlers") or []
            if {"console", "file"} <= set(handlers):  # the stdout of a job is written to the same file
                config.hydra.job_logging.root.handlers = [name for name in handlers if name != "console"]
        if not isinstance(config.seed, int):  # a part of the folder's name
            raise LabError(f"seed must be a whole number, got {config.seed!r}")
        return config


def _resolved(config: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration of a job, as its process will resolve it."""
    plain = copy.deepcopy(config)
    with read_write(plain), open_dict(plain):
        del plain["hydra"]
    with _hydra_config(config):
        return resolve(plain, config.hydra.runtime.choices, str(config.hydra.runtime.output_dir))


@contextmanager
def _hydra_config(config: DictConfig) -> Iterator[None]:
    """Let ${hydra:...} refer to this job."""
    before, HydraConfig.instance().cfg = HydraConfig.instance().cfg, config  # type: ignore[assignment]
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def run_composed(context: HydraContext, task: TaskFunction, config: DictConfig, resumes: bool) -> Any:
    """Run a job in one of its processes, and return the result of its task.

    Args:
        context: the context of Hydra.
        task: the task function of Hydra.
        config: the composed configuration of the job.
        resumes: whether the job resumes the run in its folder.
    """
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
        context.callbacks.callbacks = []  # the user's Hydra callbacks are called once per job
        logging.getLogger().addHandler(logging.NullHandler())
    result = run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        configure_logging=first,
    )
    if result.status is JobStatus.COMPLETED:
        return result.return_value
    error: BaseException = result._return_value  # noqa: SLF001 -- the public attribute also writes to stderr
    log_failure(error, traceback=config.traceback)
    raise error


def log_failure(error: BaseException, *, traceback: bool) -> None:
    """Log the error that ends a process of a job: a LabError in one line, other errors with their traceback."""
    rank = environment.current_rank().rank
    if not isinstance(error, LabError) or traceback:
        print_traceback(error)  # stderr of a job is written to its log
    elif rank == 0:
        logger.error("%s", error)
    else:
        sys.stderr.write(printable(f"rank {rank}: {error}\n"))
