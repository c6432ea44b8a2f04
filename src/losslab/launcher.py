"""Hydra's launcher for `-m`: each job is a process, or several, of its own. Imports no torch."""

import logging
import os
import sys
import time
import traceback
from collections.abc import Sequence
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

from losslab import processes, ranks, resolvers, sweep
from losslab.board import Board
from losslab.child import Surroundings
from losslab.data.machine import cores
from losslab.errors import LabError
from losslab.processes import Run
from losslab.sweep import Job, State, Sweep

logger = logging.getLogger("losslab")


class Launcher(HydraLauncher):
    """Runs the jobs of a sweep side by side; what happens to one happens to that one alone.

    Args:
        n_jobs: how many run at a time. None for one on each GPU, or one where there is none; -1 for one on each core.
    """

    config: DictConfig
    context: HydraContext
    task: TaskFunction

    def __init__(self, n_jobs: int | None = None) -> None:
        if not isinstance(n_jobs, int | None) or n_jobs == 0 or (n_jobs is not None and n_jobs < -1):
            message = f"hydra.launcher.n_jobs must be 1 or more, -1 for all cores, or null: got {n_jobs!r}"
            raise LabError(message)
        self.n_jobs = n_jobs
        self._gpus: list[str] | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's way of handing over what a launcher needs."""
        self.config, self.context, self.task = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run these jobs → what each returned, in order. A sweeper may call it again with more."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if sweep.current is None:
            new = Sweep(Path(self.config.hydra.sweep.dir).absolute())
            new.refuse_another()
            sweep.current = new
            logger.info("sweep folder  %s", self.config.hydra.sweep.dir)
        jobs = sweep.current.add(job_overrides, initial_job_idx, list(self.config.hydra.overrides.task))
        batch = Batch(self, sweep.current, jobs)
        with processes.termination_as_exit(), Board(sweep.current) as board:
            batch.run(board)
        self._check_direction(jobs)
        sweeper = str(OmegaConf.select(self.config, "hydra.sweeper._target_"))
        # Hydra's basic sweeper gives up at the first failure that it is told of; `train` speaks of them at the end.
        silent = sweeper.endswith("BasicSweeper")
        return [_returned(job, batch.configs.get(job.number), silent=silent) for job in jobs]

    def _check_direction(self, jobs: list[Job]) -> None:
        """Refuse to look for the worst: Optuna minimizes unless it is told, and accuracy is better high."""
        asked = OmegaConf.select(self.config, "hydra.sweeper.direction")
        asked = getattr(asked, "name", asked)
        if self.config.optimized_metric is not None or asked not in {"minimize", "maximize"}:
            return
        for job in jobs:
            best = f"{job.news.get('mode', asked[:3])}imize"
            if best != asked:
                worst = f"hydra.sweeper.direction={asked} would look for the worst {job.news['metric']}"
                message = f"{worst}: set it to {best}"
                raise LabError(message)

    def gpus(self) -> list[str]:
        """The GPUs that jobs may have."""
        if self._gpus is None:
            self._gpus = processes.gpus()
        return self._gpus

    def at_a_time(self, trainer: Any) -> int:
        """How many jobs run at a time."""
        if self.n_jobs is None:
            return max(1, len(self.gpus())) if trainer.get("accelerator", "auto") not in {"cpu", "mps"} else 1
        return cores() if self.n_jobs == -1 else self.n_jobs


class Batch:
    """Some jobs of a sweep, on their way through the machine."""

    def __init__(self, launcher: Launcher, of: Sweep, jobs: list[Job]) -> None:
        self.launcher, self.sweep = launcher, of
        self.waiting, self._count = list(jobs), len(jobs)
        self.running: dict[Run, Job] = {}
        self.configs: dict[int, DictConfig] = {}
        self._on_gpus: dict[Run, list[str]] = {}
        self._limit = 1

    def run(self, board: Board) -> None:
        """Run them all; if this is interrupted, end them all."""
        try:
            while self.waiting or self.running:
                board.refresh()  # before the first start, which takes seconds
                self._fill(board)
                self._look(board)
        except BaseException:
            self._interrupt(board)
            raise
        finally:
            self.sweep.write()

    def _fill(self, board: Board) -> None:
        """Start as many as may run."""
        while self.waiting and len(self.running) < self._limit:
            if not self._start(self.waiting[0], board):
                break

    def _start(self, job: Job, board: Board) -> bool:
        """Whether the job began, or was refused; else it must wait for a GPU."""
        try:
            config = self.configs.get(job.number)
            if config is None:
                config = self.configs[job.number] = self._compose(job)
            trainer = config.trainer
            self._limit = self.launcher.at_a_time(trainer)
            world = ranks.wanted(trainer, lambda: len(self.launcher.gpus()))
            given = self._gpus_for(trainer, world)
        except (LabError, CompactHydraException, OmegaConfBaseException) as error:
            self.waiting.remove(job)
            job.state, job.reason = State.FAILED, " ".join(str(error).split())
            board.ended(job)
            return True
        if given is None:
            return False
        beside = min(self._limit, self._count)
        environment = {"LOSSLAB_JOBS": str(beside)} | ({"CUDA_VISIBLE_DEVICES": ",".join(given)} if given else {})
        output = Path(config.hydra.runtime.output_dir) / f"{config.hydra.job.name}.log"
        share = processes.share(beside * world)
        arguments = (self.launcher.context, self.launcher.task, config)
        run = Run(_job, [arguments] * world, Surroundings(environment, output, share))
        self.waiting.remove(job)
        job.state, job.folder = State.RUNNING, output.parent
        self.running[run], self._on_gpus[run] = job, given
        board.started(job)
        return True

    def _compose(self, job: Job) -> DictConfig:
        config = self.launcher.context.config_loader.load_sweep_config(self.launcher.config, job.overrides)
        with read_write(config), open_dict(config):
            config.hydra.job.id = config.hydra.job.num = job.number
            config.hydra.sweep.dir = str(self.sweep.folder)  # named once, not again in each child
            before, HydraConfig.instance().cfg = HydraConfig.instance().cfg, config  # type: ignore[assignment]
            try:
                config.hydra.sweep.subdir = str(config.hydra.sweep.subdir)
            finally:
                HydraConfig.instance().cfg = before
            config.hydra.runtime.output_dir = str(self.sweep.folder / config.hydra.sweep.subdir)
            handlers = OmegaConf.select(config, "hydra.job_logging.root.handlers") or []
            if {"console", "file"} <= set(handlers):  # the child's output goes to the same file
                config.hydra.job_logging.root.handlers = [name for name in handlers if name != "console"]
        return config

    def _gpus_for(self, trainer: Any, world: int) -> list[str] | None:
        """The GPUs for a job: [] where it takes none or says which itself, None where it must wait."""
        devices = trainer.get("devices", 1)
        chosen = not isinstance(devices, int | str) or (isinstance(devices, str) and "," in devices)
        if trainer.get("accelerator", "auto") in {"cpu", "mps"} or chosen or not self.launcher.gpus():
            return []
        all_gpus = self.launcher.gpus()
        load = {gpu: sum(gpu in taken for taken in self._on_gpus.values()) for gpu in all_gpus}
        freest = sorted(all_gpus, key=lambda gpu: load[gpu])[:world]
        crowded = (self.launcher.n_jobs or 0) * world > len(all_gpus)  # then they were asked to share
        return freest if self.running == {} or crowded or all(load[gpu] == 0 for gpu in freest) else None

    def _look(self, board: Board) -> None:
        processes.watch(list(self.running), 0.25)
        for run, job in list(self.running.items()):
            job.seconds = time.monotonic() - run.started
            job.news = run.news
            if run.outcome is not None:
                self._end(run, board)
        self.sweep.write(now=False)

    def _end(self, run: Run, board: Board) -> None:
        job, outcome = self.running.pop(run), run.outcome
        del self._on_gpus[run]
        assert outcome is not None  # noqa: S101
        job.value, job.reason = outcome.value, outcome.reason
        if outcome.reason is None:
            job.state = State.DONE  # also if it was interrupted: too late
        elif job.state is State.RUNNING:
            job.state = State.FAILED
        board.ended(job)

    def _interrupt(self, board: Board) -> None:
        for run, job in self.running.items():
            job.state = State.INTERRUPTED
            run.interrupt()
        for job in self.waiting:
            job.state, job.reason = State.INTERRUPTED, "not started"
        try:
            while self.running:
                self._look(board)
        except BaseException:  # a second Ctrl-C
            for run in self.running:
                run.kill()
            raise


def _job(context: HydraContext, task: TaskFunction, config: DictConfig) -> Any:
    """What each rank of a job runs, in a process of its own."""
    first = ranks.here().rank == 0
    resolvers.register()
    setup_globals()
    Singleton._instances.pop(HydraConfig, None)  # noqa: SLF001
    JobRuntime.instance().set("name", config.hydra.job.name)
    if not first:
        with read_write(config), open_dict(config):
            config.hydra.output_subdir = None
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
        traceback.print_exception(error)  # into the log, like all that is written here
    elif first:
        logger.error("%s", error)
    else:
        sys.stderr.write(f"rank {ranks.here().rank}: {error}\n")
    raise error


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
