"""The Hydra launcher for `-m`: each job runs in its own processes. Imports no torch."""

import dataclasses
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
from losslab.sweep.job import HydraJobs
from losslab.sweep.resume import ExistingRuns, find_unfinished
from losslab.sweep.scheduler import GpuSlots, run_jobs
from losslab.sweep.state import Job, Sweep
from losslab.training.config import ProcessContext
from losslab.training.distributed import spawn

logger = logging.getLogger("losslab")


class Launcher(HydraLauncher):
    """Runs the jobs of a sweep in parallel; the failure of one job does not affect the others.

    Args:
        n_jobs: the number of simultaneous jobs, see `GpuSlots`.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        self.n_jobs = GpuSlots(n_jobs).n_jobs  # checked before the folder of the sweep is created
        self._existing: ExistingRuns | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the objects that Hydra passes to a launcher."""
        context = dataclasses.replace(hydra_context)  # for the processes of the jobs
        loader = _CachingLoader(config, hydra_context.config_loader)
        hydra_context.config_loader = loader  # type: ignore[assignment]
        self._jobs = HydraJobs(context, task_function, loader.take)
        self._config = config
        self._context: ProcessContext = task_function.context  # type: ignore[attr-defined]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs and return their results in order. A sweeper may call this again with more jobs."""
        config = self._config
        setup_globals()
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
        sweep: Sweep | None = self._context.sweep
        if sweep is None:
            sweep = self._open_sweep(Path(config.hydra.sweep.dir).absolute())
        spawn.process_context()  # imports torch in the forkserver while the jobs are composed
        jobs = sweep.add(job_overrides, initial_job_idx, list(config.hydra.overrides.task))
        for job in jobs:
            self._jobs.prepare(job, sweep)
        run_jobs(sweep, jobs, self._jobs.prepare, self._existing, self._context)
        self._check_direction(jobs)
        # Hydra's basic sweeper stops at the first reported failure. Instead, the closing table reports failures.
        silent = _sweeper(config).endswith("BasicSweeper")
        return [_returned(job, silent=silent) for job in jobs]

    def _open_sweep(self, folder: Path) -> Sweep:
        """Lock the folder of a new sweep or of a sweep to complete.

        Raises:
            LabError: another process runs a sweep in the folder, or its summary is not that of a sweep.
        """
        config = self._config
        batch_size = OmegaConf.select(config, "hydra.sweeper.max_batch_size")
        all_known = _sweeper(config).endswith("BasicSweeper") and batch_size is None
        sweep = Sweep(folder, sys.argv[1:], all_known=all_known, n_jobs=self.n_jobs)
        sweep.lock()
        summary = folder / runs.SUMMARY
        again = summary.is_file() and summary.stat().st_size > 0
        try:
            self._existing = ExistingRuns(folder) if again else None
        except LabError as error:
            raise LabError(f"{error}: set run_dir to another folder") from error
        logger.info("sweep folder  %s", runs.display_path(folder))
        unfinished = None if again else find_unfinished(folder, sweep.command)
        if unfinished is not None:
            logger.info(
                "unfinished    another sweep of the same command; resume=%s completes it", runs.display_path(unfinished)
            )
        return sweep

    def _check_direction(self, jobs: list[Job]) -> None:
        """Refuse to search for the worst value: Optuna minimizes by default, but a higher accuracy is better."""
        direction = OmegaConf.select(self._config, "hydra.sweeper.direction")
        direction = getattr(direction, "name", direction)
        if self._config.optimized_metric is not None or direction not in {"minimize", "maximize"}:
            return
        for job in jobs:
            best = f"{job.progress.get('mode', direction[:3])}imize"
            if best != direction:
                worst = f"hydra.sweeper.direction={direction} would search for the worst {job.progress['metric']}"
                raise LabError(f"{worst}: set it to {best}")


class _CachingLoader:
    """Hydra's config loader with a cache, because a sweeper composes each job for validation before the launch."""

    def __init__(self, sweep_config: DictConfig, loader: Any) -> None:
        self._sweep_config, self._loader = sweep_config, loader
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Compose a job, as Hydra's loader does."""
        config: DictConfig = self._loader.load_sweep_config(master_config, sweep_overrides)
        self._composed[tuple(sweep_overrides)] = config
        return config

    def take(self, overrides: Sequence[str]) -> DictConfig:
        """Remove the configuration of a job from the cache and return it; compose it if it is not cached."""
        config: DictConfig | None = self._composed.pop(tuple(overrides), None)
        return config or self._loader.load_sweep_config(self._sweep_config, list(overrides))


def _sweeper(config: DictConfig) -> str:
    return str(OmegaConf.select(config, "hydra.sweeper._target_"))


class _Failure(JobReturn):
    """The result of a failed job that Hydra does not report on stderr, since the live table has reported it."""

    @property
    def return_value(self) -> NoReturn:
        raise self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


def _returned(job: Job, *, silent: bool) -> JobReturn:
    failed = job.state is not State.DONE
    result = _Failure() if failed and not silent else JobReturn()
    result.overrides, result.working_dir = job.overrides, os.getcwd()  # noqa: PTH109 -- as Hydra does
    config = job.composed
    if config is not None:
        result.task_name = config.hydra.job.name
        result.hydra_cfg = OmegaConf.create({"hydra": config.hydra})
        result.cfg = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    result.status = JobStatus.FAILED if failed and not silent else JobStatus.COMPLETED
    result.return_value = job.value if result.status is JobStatus.COMPLETED else LabError(job.reason)
    return result
