"""Jobs of a sweep on their way through the machine. Imports no torch."""

import time
from typing import Any, NamedTuple

from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from losslab import job as work
from losslab import job_configs, processes, ranks
from losslab.board import Board
from losslab.child import Surroundings
from losslab.earlier import Earlier, Left
from losslab.errors import LabError
from losslab.places import Places
from losslab.processes import Run
from losslab.runs import RunFolder
from losslab.sweep import Job, State, Sweep

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
        self.running: dict[Run, Job] = {}
        self.configs: dict[int, DictConfig] = {}
        self._on_gpus: dict[Run, list[str]] = {}
        self._limit = 1

    def take_over(self, earlier: Earlier) -> None:
        """Find among the runs of earlier calls those that these jobs ask for: what is done, and what is to go on."""
        taken: list[tuple[Job, Left, dict[str, Any]]] = []
        for job in self.jobs:
            try:
                config = self._compose(job)
                asked = job_configs.resolved(config)
            except _REFUSED:  # it will be said when its turn comes
                job.number = earlier.number(job.number, None)
                continue
            left = earlier.take(asked)
            if left is None:
                path = job_configs.folder_of(config)
                number = earlier.number(job.number, None if RunFolder(path).config.exists() else path)
            else:
                number = earlier.number(job.number if left.number is None else left.number, left.run.path)
            if number != job.number:
                job.number = number
                config = self._compose(job)
            self.configs[number] = config
            if left is not None:
                job_configs.put(config, left.run.path)
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
            world = ranks.wanted(trainer, lambda: len(self.places.gpus()))
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
        environment = {"LOSSLAB_JOBS": str(beside)} | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})
        output = job_configs.folder_of(config) / f"{config.hydra.job.name}.log"
        share = processes.share(beside * world)
        arguments = (self.given.context, self.given.task, config, job.resumes)
        run = Run(work.run, [arguments] * world, Surroundings(environment, output, share))
        self.waiting.remove(job)
        job.state, job.folder = State.RUNNING, output.parent
        self.running[run], self._on_gpus[run] = job, gpus
        board.started(job)
        return True

    def _compose(self, job: Job) -> DictConfig:
        return job_configs.compose(self.given.context, self.given.config, job, self.sweep.folder)

    def _look(self, board: Board) -> None:
        processes.watch(list(self.running), 0.25)
        for run, job in list(self.running.items()):
            job.seconds = time.monotonic() - run.started
            job.news |= run.news
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
