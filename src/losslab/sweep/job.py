"""What each process of a job of a sweep runs. Imports no torch.

The configuration of each job of a sweep, and the folder that it names. Imports no torch.
"""

import copy
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from losslab.errors import LabError
from losslab.io.terminal import ignore_output_errors, print_traceback, printable
from losslab.runs import trust
from losslab.runs.trust import check_resumable, check_write_paths
from losslab.sweep import resume, state
from losslab.sweep.state import Job
from losslab.training.config import register, resolve
from losslab.training.distributed import environment, spawn

logger = logging.getLogger("losslab")


def run(context: HydraContext, task: TaskFunction, config: DictConfig, resumes: bool) -> Any:
    """Run the task of a job in a process of its own → what it returns.

    Args:
        context: Hydra's.
        task: of the job.
        config: of the job.
        resumes: whether it goes on with the run that lies in its folder.
    """
    ignore_output_errors()
    first = environment.current_rank().rank == 0
    state.resumes = resumes
    register()
    setup_globals()
    Singleton._instances.pop(HydraConfig, None)  # noqa: SLF001
    JobRuntime.instance().set("name", config.hydra.job.name)
    if resumes or not first:  # what was composed for a run that goes on lies there
        with read_write(config), open_dict(config):
            config.hydra.output_subdir = None
    if not first:
        context.callbacks.callbacks = []  # the user's callbacks hear of one job, not of its processes
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
    error: BaseException = result._return_value  # noqa: SLF001 -- the public one also writes to stderr
    if not isinstance(error, LabError) or config.traceback:
        print_traceback(error)  # into the log, like all that is written here
    elif first:
        logger.error("%s", error)
    else:
        sys.stderr.write(printable(f"rank {environment.current_rank().rank}: {error}\n"))
    raise error


def compose(context: HydraContext, of_sweep: DictConfig, job: Job, sweep: Path) -> DictConfig:
    """What Hydra composes for a job, in the folder that its number and its configuration name.

    Raises:
        CompactHydraException: what was asked for cannot be composed; as OmegaConfBaseException.
        LabError: its seed is none; or it does more than what somebody else's sweep may.
    """
    config = context.config_loader.load_sweep_config(of_sweep, job.overrides)
    with read_write(config), open_dict(config):
        config.hydra.job.id = config.hydra.job.num = job.number
        config.hydra.sweep.dir = str(sweep)  # named once, not again in each child
        with _known_to_resolvers(config):
            subdir = str(config.hydra.sweep.subdir)
        handlers = OmegaConf.select(config, "hydra.job_logging.root.handlers") or []
        if {"console", "file"} <= set(handlers):  # the child's output goes to the same file
            config.hydra.job_logging.root.handlers = [name for name in handlers if name != "console"]
    if not isinstance(config.seed, int):
        message = f"seed must be a whole number, got {config.seed!r}"  # a part of the folder's name
        raise LabError(message)
    put(config, sweep / subdir)
    _check(config, job)
    return config


def put(config: DictConfig, folder: Path) -> None:
    """Have a job run in this folder.

    Raises:
        LabError: it lies outside of a sweep that somebody else may have written.
    """
    sweep = Path(config.hydra.sweep.dir)
    if resume.handed_over is not None:
        if folder.is_symlink() or folder.parent.resolve() != sweep.resolve() or folder.name in {"", "..", "."}:
            raise LabError(
                f"{folder} is no folder in {sweep}: nothing is made there. Say the whole command of the sweep again"
            )
        if folder.is_dir():
            check_resumable({"run_dir": str(folder)}, folder)
    with read_write(config), open_dict(config):
        config.hydra.sweep.subdir = os.path.relpath(folder, config.hydra.sweep.dir)
        config.hydra.runtime.output_dir = str(folder)


def folder_of(config: DictConfig) -> Path:
    """Where a job runs."""
    return Path(config.hydra.runtime.output_dir)


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration that a job will train, as its process resolves it.

    Raises:
        LabError: as `resolve` does.
    """
    plain = copy.deepcopy(config)
    with read_write(plain), open_dict(plain):
        del plain["hydra"]
    with _known_to_resolvers(config):
        return resolve(plain, config.hydra.runtime.choices, str(folder_of(config)))


def _check(config: DictConfig, job: Job) -> None:
    """See that a job of a sweep that somebody else may have written makes and writes no more than one's run may.

    Raises:
        LabError: it names what is not on the list, or leads out of its folder.
    """
    if resume.handed_over is None:
        return
    wrong = next((part for part in job.overrides if not (resume.harmless(part) or _trusts_as_said(part))), None)
    if wrong is not None:
        raise LabError(
            f"{resume.handed_over}: {wrong[:80]!r} could run code or write elsewhere: say the whole command again"
        )
    plain, source = resolved(config), resume.handed_over
    spawn.run_in_subprocess(_looked_at, plain, source, trust.said())  # where torch is imported
    check_write_paths(plain, folder_of(config))


def _trusts_as_said(part: str) -> bool:
    """Whether it trusts whom the command line of this process trusts: what the folder says of that is left out."""
    return part.startswith("trust=") and set(trust.parse_option(part.removeprefix("trust="))) <= set(trust.said())


def _looked_at(config: dict[str, Any], source: Path, trusted: list[str]) -> None:
    trust.also(trusted)
    trust.check_targets(config, source)


@contextmanager
def _known_to_resolvers(config: DictConfig) -> Iterator[None]:
    """${hydra:...} means this job's meanwhile."""
    before, HydraConfig.instance().cfg = HydraConfig.instance().cfg, config  # type: ignore[assignment]
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before
