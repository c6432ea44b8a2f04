"""What each process of a job of a sweep runs. Imports no torch."""

import logging
import sys
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from losslab import ranks, resolvers, sweep
from losslab.errors import LabError
from losslab.terminal import outlive_readers, printable, show_trace

logger = logging.getLogger("losslab")


def run(context: HydraContext, task: TaskFunction, config: DictConfig, resumes: bool) -> Any:
    """Run the task of a job in a process of its own → what it returns.

    Args:
        context: Hydra's.
        task: of the job.
        config: of the job.
        resumes: whether it goes on with the run that lies in its folder.
    """
    outlive_readers()
    first = ranks.here().rank == 0
    sweep.resumes = resumes
    resolvers.register()
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
        show_trace(error)  # into the log, like all that is written here
    elif first:
        logger.error("%s", error)
    else:
        sys.stderr.write(printable(f"rank {ranks.here().rank}: {error}\n"))
    raise error
