"""Running the jobs of a sweep in processes, by default one job per GPU at a time. Imports no torch."""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from losslab.data.machine import cores
from losslab.errors import LabError
from losslab.runs.sweep_summary import State
from losslab.sweep.display import LiveTable
from losslab.sweep.resume import ExistingRuns, take_over
from losslab.sweep.state import Job, Sweep
from losslab.training.config import ProcessContext
from losslab.training.distributed import environment, spawn
from losslab.training.distributed.spawn import WorkerGroup
from losslab.training.distributed.worker import WorkerOptions


class GpuSlots:
    """The GPUs of this machine, and the number of jobs that may run on them.

    Args:
        n_jobs: the maximum number of simultaneous jobs. None for one per GPU, or one without GPUs; -1 for one per core.

    Raises:
        LabError: `n_jobs` is not valid.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        if not isinstance(n_jobs, int | None) or n_jobs == 0 or (n_jobs is not None and n_jobs < -1):
            raise LabError(f"hydra.launcher.n_jobs must be 1 or more, -1 for all cores, or null: got {n_jobs!r}")
        self.n_jobs = n_jobs
        self._gpus: list[str] | None = None

    def gpus(self) -> list[str]:
        """Return the GPUs that jobs may use."""
        if self._gpus is None:
            self._gpus = spawn.visible_gpus()
        return self._gpus

    def max_jobs(self, trainer: Any) -> int:
        """Return the maximum number of simultaneous jobs with this trainer configuration."""
        if self.n_jobs is None:
            return max(1, len(self.gpus())) if trainer.get("accelerator", "auto") not in {"cpu", "mps"} else 1
        return cores() if self.n_jobs == -1 else self.n_jobs

    def gpus_for(self, trainer: Any, world_size: int, in_use: Collection[list[str]]) -> list[str] | None:
        """Return the GPUs for a job: [] if it needs none or its configuration chooses them, None if it must wait.

        Args:
            trainer: the trainer configuration of the job.
            world_size: the number of processes of the job.
            in_use: the GPUs of each running job.
        """
        devices = trainer.get("devices", 1)
        chosen = not isinstance(devices, int | str) or (isinstance(devices, str) and "," in devices)
        if trainer.get("accelerator", "auto") in {"cpu", "mps"} or chosen or not self.gpus():
            return []
        load = {gpu: sum(gpu in each for each in in_use) for gpu in self.gpus()}
        least_used = sorted(self.gpus(), key=lambda gpu: load[gpu])[:world_size]
        shared = (self.n_jobs or 0) * world_size > len(self.gpus())  # the user requested more jobs than GPUs
        return least_used if not in_use or shared or all(load[gpu] == 0 for gpu in least_used) else None


class JobScheduler:
    """Starts jobs of a sweep, and follows them until they end.

    Args:
        slots: the GPUs and the maximum number of simultaneous jobs.
        sweep: the sweep of the jobs.
        jobs: the jobs to run, which may be a part of the sweep.
    """

    def __init__(self, slots: GpuSlots, sweep: Sweep, jobs: list[Job]) -> None:
        self.slots, self.sweep, self.jobs = slots, sweep, jobs
        self.waiting = [job for job in jobs if not job.done_before]
        self.running: dict[WorkerGroup, Job] = {}
        self._gpus: dict[WorkerGroup, list[str]] = {}
        self._limit = 1

    def run(self, table: LiveTable) -> None:
        """Run all jobs. An interrupt ends the running jobs."""
        try:
            while self.waiting or self.running:
                table.refresh()  # before the first job starts, which takes seconds
                self._fill(table)
                self._watch(table)
        except BaseException:
            self._interrupt(table)
            raise
        finally:
            self.sweep.write()

    def _fill(self, table: LiveTable) -> None:
        """Start waiting jobs up to the maximum number."""
        while self.waiting and len(self.running) < self._limit:
            if not self._start(self.waiting[0], table):
                break

    def _start(self, job: Job, table: LiveTable) -> bool:
        """Start a job, or let it fail. Return False if it must wait for a GPU."""
        if job.task is None:
            return self._refuse(job, str(job.reason), table)
        trainer = job.task.trainer
        try:
            self._limit = self.slots.max_jobs(trainer)
            world_size = environment.requested_processes(trainer, lambda: len(self.slots.gpus()))
            gpus = self.slots.gpus_for(trainer, world_size, self._gpus.values())
        except LabError as error:
            return self._refuse(job, " ".join(str(error).split()), table)
        if gpus is None:
            return False
        # Includes jobs that were done before: with another number of threads, results would differ in the last digits.
        max_jobs = min(self._limit, len(self.jobs))
        variables = {"LOSSLAB_JOBS": str(max_jobs)} | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})
        options = WorkerOptions(variables, job.task.log, spawn.threads_per_process(max_jobs * world_size))
        run = WorkerGroup(job.task.function, [(*job.task.arguments, job.resumes)] * world_size, options)
        self.waiting.remove(job)
        job.state, job.folder, job.reason = State.RUNNING, job.task.log.parent, None
        self.running[run], self._gpus[run] = job, gpus
        table.log_start(job)
        return True

    def _refuse(self, job: Job, reason: str, table: LiveTable) -> bool:
        self.waiting.remove(job)
        job.state, job.reason = State.FAILED, reason
        table.log_end(job)
        return True

    def _watch(self, table: LiveTable) -> None:
        spawn.poll(list(self.running), 0.25)
        for run, job in list(self.running.items()):
            job.seconds = time.monotonic() - run.started
            job.progress |= run.progress
            if run.result is not None:
                self._end(run, table)
        self.sweep.write(now=False)

    def _end(self, run: WorkerGroup, table: LiveTable) -> None:
        job, outcome = self.running.pop(run), run.result
        del self._gpus[run]
        assert outcome is not None  # noqa: S101
        job.value, job.reason = outcome.value, outcome.reason
        if outcome.reason is None:
            job.state = State.DONE  # even if the job was interrupted: the interrupt came too late
        elif job.state is State.RUNNING:
            job.state = State.FAILED
        table.log_end(job)

    def _interrupt(self, table: LiveTable) -> None:
        for run, job in self.running.items():
            job.state = State.INTERRUPTED
            run.interrupt()
        for job in self.waiting:
            job.state, job.reason = State.INTERRUPTED, "not started"
        try:
            while self.running:
                self._watch(table)
        except BaseException:  # a second Ctrl-C
            for run in self.running:
                run.kill()
            raise


def run_jobs(
    sweep: Sweep,
    jobs: list[Job],
    prepare: Callable[[Job, Sweep, Path | None], None],
    existing: ExistingRuns | None,
    context: ProcessContext,
) -> None:
    """Run jobs of a sweep. Existing runs in its folder are taken over, and only the missing jobs are run.

    Args:
        sweep: the sweep, whose folder this process has locked.
        jobs: the prepared jobs, which are part of the sweep.
        prepare: a function that prepares a job again, with its current number and a folder.
        existing: the runs in the folder; None for a new sweep.
        context: the context of this process. Its `sweep` is set before the first job starts.
    """
    if existing is not None:
        take_over(existing, jobs, sweep, prepare)
        sweep.other_rows = existing.remaining_rows
    sweep.write_jobs()
    sweep.write()  # not earlier: an interrupt before this does not change the summary
    context.sweep = sweep
    with spawn.termination_raises_exit(), LiveTable(sweep) as table:
        table.log_existing(jobs)
        JobScheduler(GpuSlots(sweep.n_jobs), sweep, jobs).run(table)
