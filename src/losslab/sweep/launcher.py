"""Hydra's launcher for `-m`: each job is a process, or several, of its own. Imports no torch."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher as HydraLauncher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from losslab import runs
from losslab.errors import LabError
from losslab.runs.sweep_summary import State
from losslab.sweep import state
from losslab.sweep.display import Board
from losslab.sweep.resume import Earlier, unfinished
from losslab.sweep.scheduler import Batch, Given, Places
from losslab.sweep.state import Job, Sweep
from losslab.training.distributed import spawn

logger = logging.getLogger("losslab")


class Launcher(HydraLauncher):
    """Runs the jobs of a sweep side by side; what happens to one happens to that one alone.

    Args:
        n_jobs: as `Places` takes it.
    """

    given: Given

    def __init__(self, n_jobs: int | None = None) -> None:
        self.places = Places(n_jobs)
        self._earlier: Earlier | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's way of handing over what a launcher needs."""
        self.given = Given(hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run these jobs → what each returned, in order. A sweeper may call it again with more.

        What earlier calls left in the folder of the sweep is taken over: what is done is not done again, what is not
        is resumed.
        """
        config = self.given.config
        setup_globals()
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
        ours = state.current
        if ours is None:
            ours, self._earlier = _begin(Path(config.hydra.sweep.dir))
        jobs = ours.add(job_overrides, initial_job_idx, list(config.hydra.overrides.task))
        batch = Batch(self.given, self.places, ours, jobs)
        if self._earlier is not None:
            batch.take_over(self._earlier)
        ours.write()  # not earlier: whoever is interrupted before this leaves the summary as it was
        state.current = ours
        with spawn.termination_raises_exit(), Board(ours) as board:
            board.found(jobs)
            batch.run(board)
        self._check_direction(jobs)
        sweeper = str(OmegaConf.select(config, "hydra.sweeper._target_"))
        # Hydra's basic sweeper gives up at the first failure that it is told of; `train` speaks of them at the end.
        silent = sweeper.endswith("BasicSweeper")
        return [_returned(job, batch.configs.get(job.number), silent=silent) for job in jobs]

    def _check_direction(self, jobs: list[Job]) -> None:
        """Refuse to look for the worst: Optuna minimizes unless it is told, and accuracy is better high."""
        config = self.given.config
        asked = OmegaConf.select(config, "hydra.sweeper.direction")
        asked = getattr(asked, "name", asked)
        if config.optimized_metric is not None or asked not in {"minimize", "maximize"}:
            return
        for job in jobs:
            best = f"{job.news.get('mode', asked[:3])}imize"
            if best != asked:
                worst = f"hydra.sweeper.direction={asked} would look for the worst {job.news['metric']}"
                raise LabError(f"{worst}: set it to {best}")


def _begin(folder: Path) -> tuple[Sweep, Earlier | None]:
    """Take the folder of a sweep for this process → the sweep, and what earlier calls left there, if any did.

    Raises:
        LabError: another process runs a sweep in it, or its summary is of something else.
    """
    new = Sweep(folder.absolute(), sys.argv[1:])
    new.hold()
    summary = new.folder / runs.SUMMARY
    again = summary.is_file() and summary.stat().st_size > 0
    try:
        earlier = Earlier(new.folder) if again else None
    except LabError as error:
        raise LabError(f"{error}: set run_dir to another folder") from error
    logger.info("sweep folder  %s", runs.display_path(new.folder))
    left = None if again else unfinished(new.folder, new.command)
    if left is not None:
        logger.info("unfinished    another of the same command, which resume=%s completes", runs.display_path(left))
    return new, earlier


class _Failure(JobReturn):
    """A job that failed, without Hydra's word on stderr: the board has said it."""

    @property
    def return_value(self) -> NoReturn:
        raise self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


def _returned(job: Job, config: DictConfig | None, *, silent: bool) -> JobReturn:
    failed = job.state is not State.DONE
    result = _Failure() if failed and not silent else JobReturn()
    result.overrides, result.working_dir = job.overrides, os.getcwd()  # noqa: PTH109 -- as Hydra does
    if config is not None:
        result.task_name = config.hydra.job.name
        result.hydra_cfg = OmegaConf.create({"hydra": config.hydra})
        result.cfg = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    result.status = JobStatus.FAILED if failed and not silent else JobStatus.COMPLETED
    result.return_value = job.value if result.status is JobStatus.COMPLETED else LabError(job.reason)
    return result
