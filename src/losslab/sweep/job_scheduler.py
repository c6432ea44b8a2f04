"""Runs the jobs of a sweep in processes, by default one job per GPU at a time. Imports no torch."""

import time
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from losslab.data.machine import cores
from losslab.errors import LabError, message_of
from losslab.runs import trust
from losslab.runs.sweep_summary import State
from losslab.sweep.display import LiveTable
from losslab.sweep.resume import ExistingRuns, take_over
from losslab.sweep.state import Job, Sweep
from losslab.training.config import ProcessContext
from losslab.training.distributed import environment, spawn
from losslab.training.distributed.spawn import WorkerGroup
from losslab.training.distributed.worker import WorkerOptions


class JobLimits:
    """The number of jobs that may run at the same time, and the GPUs that each may use.

    Args:
        n_jobs: the maximum number of jobs; -1: one per core; None: one per GPU, or one job if there are no GPUs.

    Raises:
        LabError: `n_jobs` is not valid.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        if not isinstance(n_jobs, int | None) or n_jobs == 0 or (n_jobs is not None and n_jobs < -1):
            raise LabError(f"hydra.launcher.n_jobs must be 1 or more, -1 for all cores, or null: got {n_jobs!r}")
        self.n_jobs = n_jobs
        self._requested_jobs = cores() if n_jobs == -1 else n_jobs

    @cached_property
    def gpus(self) -> list[str]:
        """The GPUs that jobs may use."""
        return spawn.visible_gpus()

    def max_jobs(self, trainer: Any) -> int:
        """Return the maximum number of simultaneous jobs with this trainer configuration."""
        if self._requested_jobs is not None:
            return self._requested_jobs
        return max(1, len(self.gpus)) if trainer.get("accelerator", "auto") not in {"cpu", "mps"} else 1

    def gpus_for(self, trainer: Any, world_size: int, in_use: Collection[list[str]]) -> list[str] | None:
        """Return the GPUs to assign to a job: [] if it runs on the CPU or its configuration chooses the GPUs.

        `in_use` contains the GPUs of each running job. Return None if the job must wait for GPUs.
        """
        devices = trainer.get("devices", 1)
        are_chosen = not isinstance(devices, int | str) or (isinstance(devices, str) and "," in devices)
        if trainer.get("accelerator", "auto") in {"cpu", "mps"} or are_chosen or not self.gpus:
            return []
        load = {gpu: sum(gpu in each for each in in_use) for gpu in self.gpus}
        least_used = sorted(self.gpus, key=lambda gpu: load[gpu])[:world_size]
        # The jobs that the user requested have more processes than there are GPUs.
        are_shared = (self._requested_jobs or 0) * world_size > len(self.gpus)
        return least_used if not in_use or are_shared or all(load[gpu] == 0 for gpu in least_used) else None


class JobScheduler:
    """Runs `jobs`, which are all jobs of a sweep or the latest batch of a search, until they end."""

    def __init__(self, limits: JobLimits, sweep: Sweep, jobs: list[Job], table: LiveTable) -> None:
        self.limits, self.sweep, self.jobs, self.table = limits, sweep, jobs, table
        self.waiting = [job for job in jobs if not job.reused]
        self.running: dict[WorkerGroup, Job] = {}
        self._gpus: dict[WorkerGroup, list[str]] = {}
        self._limit = 1

    def run(self) -> None:
        """Run all jobs. An exception, such as KeyboardInterrupt, interrupts the running jobs."""
        try:
            while self.waiting or self.running:
                self.table.refresh()  # before the first job starts, which takes seconds
                self._fill()
                self._watch()
        except BaseException:
            self._interrupt()
            raise
        finally:
            self.sweep.write()

    def _fill(self) -> None:
        """Start waiting jobs until the maximum number of jobs is running or the next job must wait for a GPU."""
        while self.waiting and len(self.running) < self._limit:
            if not self._start(self.waiting[0]):
                break

    def _start(self, job: Job) -> bool:
        """Start a job, or mark it as failed if it cannot start. Return False if it must wait for a GPU."""
        if job.task is None:
            return self._refuse(job, str(job.reason))
        trainer = job.task.trainer
        try:
            self._limit = self.limits.max_jobs(trainer)
            world_size = environment.requested_processes(trainer, lambda: len(self.limits.gpus))
            gpus = self.limits.gpus_for(trainer, world_size, self._gpus.values())
        except LabError as error:
            return self._refuse(job, message_of(error))
        if gpus is None:
            return False
        # Counts reused jobs too: the number of threads must not depend on them, since it affects the last digits.
        max_jobs = min(self._limit, len(self.jobs))
        variables = {"LOSSLAB_JOBS": str(max_jobs)} | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})
        options = WorkerOptions(variables, job.task.log, spawn.threads_per_process(max_jobs * world_size))
        group = WorkerGroup(job.task.function, [(*job.task.arguments, job.resumes)] * world_size, options)
        self.waiting.remove(job)
        job.state, job.folder, job.reason = State.RUNNING, job.task.log.parent, None
        self.running[group], self._gpus[group] = job, gpus
        self.table.log_start(job)
        return True

    def _refuse(self, job: Job, reason: str) -> bool:
        """Mark a waiting job as failed, and return True, since it does not wait for a GPU."""
        self.waiting.remove(job)
        job.state, job.reason = State.FAILED, reason
        self.table.log_end(job)
        return True

    def _watch(self) -> None:
        """Wait at most 0.25 s for news of the running jobs, then update their states."""
        spawn.poll(list(self.running), 0.25)
        for group, job in list(self.running.items()):
            job.seconds = time.monotonic() - group.started
            job.progress |= group.progress
            if group.result is None:
                continue
            del self.running[group], self._gpus[group]
            job.value, job.reason = group.result.value, group.result.reason
            if job.reason is None:
                job.state = State.DONE  # even if the job was interrupted: the interrupt came too late
            elif job.state is State.RUNNING:
                job.state = State.FAILED
            self.table.log_end(job)
        self.sweep.write(now=False)

    def _interrupt(self) -> None:
        for group, job in self.running.items():
            job.state = State.INTERRUPTED
            group.interrupt()
        for job in self.waiting:
            job.state, job.reason = State.INTERRUPTED, "not started"
        try:
            while self.running:
                self._watch()
        except BaseException:  # a second Ctrl-C
            for group in self.running:
                group.kill()
            raise


def run_jobs(
    sweep: Sweep,
    jobs: list[Job],
    prepare: Callable[[Job, Sweep, Path | None], None],
    existing: ExistingRuns | None,
    context: ProcessContext,
) -> None:
    """Run prepared jobs of a sweep whose folder is locked. Jobs take over `existing` runs in the folder if they match.

    `prepare(job, sweep, folder)` is called for each job whose number or folder changes; if `folder` is None, the job
    gets a new folder. `context.sweep` is set before the first job starts.
    """
    if existing is not None:
        take_over(existing, jobs, sweep, prepare)
        sweep.other_rows = existing.remaining_rows
    if not sweep.is_search:  # a search is completed by its original command
        configs = [job.config for job in sweep.jobs]
        sweep.packages_to_trust = spawn.run_in_subprocess(trust.packages_to_trust, configs)  # it imports torch
    sweep.write_jobs()
    sweep.write()  # not earlier: an interrupt before this does not change the summary
    context.sweep = sweep
    with spawn.termination_raises_exit(), LiveTable(sweep) as table:
        table.log_existing(jobs)
        JobScheduler(JobLimits(sweep.n_jobs), sweep, jobs, table).run()
