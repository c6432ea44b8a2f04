"""Where the jobs of a sweep may run: how many at a time, and on which GPUs. Imports no torch.

Jobs of a sweep on their way through the machine. Imports no torch.
"""

import time
from collections.abc import Collection
from typing import Any, NamedTuple

from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from losslab.data.machine import cores
from losslab.errors import LabError
from losslab.runs import RunFolder
from losslab.runs.sweep_summary import State
from losslab.sweep import job as work
from losslab.sweep.display import Board
from losslab.sweep.resume import Earlier, Left
from losslab.sweep.state import Job, Sweep
from losslab.training.distributed import environment, spawn
from losslab.training.distributed.spawn import WorkerGroup
from losslab.training.distributed.worker import WorkerOptions


class Places:
    """What this machine has for jobs.

    Args:
        n_jobs: how many run at a time. None for one on each GPU, or one where there is none; -1 for one on each core.

    Raises:
        LabError: it is no such number.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        if not isinstance(n_jobs, int | None) or n_jobs == 0 or (n_jobs is not None and n_jobs < -1):
            raise LabError(f"hydra.launcher.n_jobs must be 1 or more, -1 for all cores, or null: got {n_jobs!r}")
        self.n_jobs = n_jobs
        self._gpus: list[str] | None = None

    def gpus(self) -> list[str]:
        """The GPUs that jobs may have."""
        if self._gpus is None:
            self._gpus = spawn.visible_gpus()
        return self._gpus

    def at_a_time(self, trainer: Any) -> int:
        """How many jobs run at a time."""
        if self.n_jobs is None:
            return max(1, len(self.gpus())) if trainer.get("accelerator", "auto") not in {"cpu", "mps"} else 1
        return cores() if self.n_jobs == -1 else self.n_jobs

    def gpus_for(self, trainer: Any, world: int, taken: Collection[list[str]]) -> list[str] | None:
        """The GPUs for a job: [] where it takes none or says which itself, None where it must wait.

        Args:
            trainer: its configuration.
            world: of so many processes.
            taken: those that each job has that runs.
        """
        devices = trainer.get("devices", 1)
        chosen = not isinstance(devices, int | str) or (isinstance(devices, str) and "," in devices)
        if trainer.get("accelerator", "auto") in {"cpu", "mps"} or chosen or not self.gpus():
            return []
        load = {gpu: sum(gpu in each for each in taken) for gpu in self.gpus()}
        freest = sorted(self.gpus(), key=lambda gpu: load[gpu])[:world]
        crowded = (self.n_jobs or 0) * world > len(self.gpus())  # then they were asked to share
        return freest if not taken or crowded or all(load[gpu] == 0 for gpu in freest) else None


_REFUSED = (LabError, CompactHydraException, OmegaConfBaseException)


class Given(NamedTuple):
    """What Hydra hands to a launcher."""

    context: HydraContext
    task: TaskFunction
    config: DictConfig
    """Of the sweep."""


class Batch:
    """Some jobs of a sweep.

    Args:
        given: by Hydra.
        places: where they may run.
        of: their sweep.
        jobs: these.
    """

    def __init__(self, given: Given, places: Places, of: Sweep, jobs: list[Job]) -> None:
        self.given, self.places, self.sweep = given, places, of
        self.jobs, self.waiting = jobs, list(jobs)
        self.running: dict[WorkerGroup, Job] = {}
        self.configs: dict[int, DictConfig] = {}
        self._on_gpus: dict[WorkerGroup, list[str]] = {}
        self._limit = 1

    def take_over(self, earlier: Earlier) -> None:
        """Find among the runs of earlier calls those that these jobs ask for: what is done, and what is to go on."""
        taken: list[tuple[Job, Left, dict[str, Any]]] = []
        for job in self.jobs:
            try:
                config = self._compose(job)
                asked = work.resolved(config)
            except _REFUSED:  # it will be said when its turn comes
                job.number = earlier.number(job.number, None)
                continue
            left = earlier.take(asked)
            if left is None:
                path = work.folder_of(config)
                number = earlier.number(job.number, None if RunFolder(path).config.exists() else path)
            else:
                number = earlier.number(job.number if left.number is None else left.number, left.run.path)
            if number != job.number:
                job.number = number
                config = self._compose(job)
            self.configs[number] = config
            if left is not None:
                work.put(config, left.run.path)
                job.folder = left.run.path
                taken.append((job, left, asked))
        earlier.fill_in(taken)
        self.waiting = [job for job in self.waiting if not job.before]
        self.sweep.others = earlier.rest

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
            self._limit = self.places.at_a_time(trainer)
            world = environment.requested_processes(trainer, lambda: len(self.places.gpus()))
            gpus = self.places.gpus_for(trainer, world, self._on_gpus.values())
        except _REFUSED as error:
            self.waiting.remove(job)
            job.state, job.reason = State.FAILED, " ".join(str(error).split())
            board.ended(job)
            return True
        if gpus is None:
            return False
        # As many as if none were done before: with more threads than then, a run would end with other digits.
        beside = min(self._limit, len(self.jobs))
        variables = {"LOSSLAB_JOBS": str(beside)} | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})
        output = work.folder_of(config) / f"{config.hydra.job.name}.log"
        share = spawn.threads_per_process(beside * world)
        arguments = (self.given.context, self.given.task, config, job.resumes)
        run = WorkerGroup(work.run, [arguments] * world, WorkerOptions(variables, output, share))
        self.waiting.remove(job)
        job.state, job.folder = State.RUNNING, output.parent
        self.running[run], self._on_gpus[run] = job, gpus
        board.started(job)
        return True

    def _compose(self, job: Job) -> DictConfig:
        return work.compose(self.given.context, self.given.config, job, self.sweep.folder)

    def _look(self, board: Board) -> None:
        spawn.poll(list(self.running), 0.25)
        for run, job in list(self.running.items()):
            job.seconds = time.monotonic() - run.started
            job.news |= run.progress
            if run.result is not None:
                self._end(run, board)
        self.sweep.write(now=False)

    def _end(self, run: WorkerGroup, board: Board) -> None:
        job, outcome = self.running.pop(run), run.result
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
