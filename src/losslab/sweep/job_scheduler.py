"""Runs the jobs of a sweep in processes, by default one job per GPU at a time. Imports no torch."""

import logging
import time
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from losslab.data.machine import cores
from losslab.errors import LabError, message_of
from losslab.runs import RunFolder, trust
from losslab.runs.sweep_summary import State
from losslab.sweep.display import LiveTable
from losslab.sweep.fusing import form_groups, is_refusal, run_group
from losslab.sweep.resume import ExistingRuns, take_over
from losslab.sweep.state import Job, JobGroup, Sweep
from losslab.training.config import ProcessContext
from losslab.training.distributed import environment, spawn
from losslab.training.distributed.spawn import WorkerGroup
from losslab.training.distributed.worker import WorkerOptions
from losslab.training.fused import MemberResult

logger = logging.getLogger("losslab")


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
    """Runs `jobs`, which are all jobs of a sweep or the latest batch of a search, until they end.

    A group of these jobs runs in one process, like a job.
    """

    def __init__(self, limits: JobLimits, sweep: Sweep, jobs: list[Job], table: LiveTable) -> None:
        self.limits, self.sweep, self.table = limits, sweep, table
        self.waiting: list[Job | JobGroup] = []
        by_number = {group.number: group for group in sweep.groups}
        for job in jobs:
            group = by_number.get(-1 if job.group is None else job.group)
            if group is None and not job.reused:
                self.waiting.append(job)
            elif group is not None and job is group.jobs[0]:
                self.waiting.append(group)
        self.running: dict[WorkerGroup, Job | JobGroup] = {}
        self._gpus: dict[WorkerGroup, list[str]] = {}
        self._limit = 1
        # Counts reused jobs too: the number of threads must not depend on them, since it affects the last digits.
        units = {f"group {job.group}" if job.group is not None else f"job {job.number}" for job in jobs}
        self._count = max(len(units), len(self.waiting))

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

    def _start(self, unit: Job | JobGroup) -> bool:
        """Start a job or a group, or mark it as failed if it cannot start. Return False if it must wait for a GPU."""
        first = unit.jobs[0] if isinstance(unit, JobGroup) else unit
        if first.task is None:
            return self._refuse(unit, str(first.reason))
        trainer = first.task.trainer
        try:
            self._limit = self.limits.max_jobs(trainer)
            world_size = environment.requested_processes(trainer, lambda: len(self.limits.gpus))
            gpus = self.limits.gpus_for(trainer, world_size, self._gpus.values())
        except LabError as error:
            return self._refuse(unit, message_of(error))
        if gpus is None:
            return False
        max_jobs = min(self._limit, self._count)
        variables = {"LOSSLAB_JOBS": str(max_jobs)} | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})
        log = unit.log if isinstance(unit, JobGroup) else first.task.log
        options = WorkerOptions(variables, log, spawn.threads_per_process(max_jobs * world_size))
        if isinstance(unit, JobGroup):
            group = WorkerGroup(run_group, [(unit.members(), unit.folder)], options)
            unit.is_running = True
        else:
            group = WorkerGroup(first.task.function, [(*first.task.arguments(), unit.resumes)] * world_size, options)
        self.waiting.remove(unit)
        for job in _unfinished(unit):
            job.state, job.reason = State.RUNNING, None
            job.folder = None if job.task is None else job.task.log.parent
        self.running[group], self._gpus[group] = unit, gpus
        self.table.log_start(unit)
        if isinstance(unit, JobGroup):
            self._write_hydra_files(unit)
        return True

    @staticmethod
    def _write_hydra_files(group: JobGroup) -> None:
        """Write the folders .hydra of new members of a group, while its process starts."""
        for job in _unfinished(group):
            if job.task is not None and job.task.write_hydra_files is not None and not job.resumes:
                try:
                    job.task.write_hydra_files()
                except OSError as error:
                    logger.warning("cannot write .hydra of job %d (%s)", job.number, error.strerror)
                    return

    def _refuse(self, unit: Job | JobGroup, reason: str) -> bool:
        """Mark a waiting job or group as failed, and return True, since it does not wait for a GPU."""
        self.waiting.remove(unit)
        for job in _unfinished(unit):
            job.state, job.reason = State.FAILED, reason
            self.table.log_end(job)
        return True

    def _watch(self) -> None:
        """Wait at most 0.25 s for news of the running jobs, then update their states."""
        spawn.poll(list(self.running), 0.25)
        for group, unit in list(self.running.items()):
            unit.seconds = time.monotonic() - group.started
            if group.result is not None:
                del self.running[group], self._gpus[group]
            if isinstance(unit, JobGroup):
                self._update_group(unit, group)
                continue
            unit.progress |= group.progress
            if group.result is not None:
                unit.value = group.result.value
                self._end(unit, group.result.reason)
        self.sweep.write(now=False)

    def _update_group(self, unit: JobGroup, group: WorkerGroup) -> None:
        """Update the members of a group. If the group has ended, all its members have."""
        progress = dict(group.progress)
        results: dict[int, MemberResult] = progress.pop("members", {})
        unit.progress |= progress
        reason: str | None = "its group ended without its result"
        if group.result is not None:
            unit.is_running = False
            results |= group.result.value or {}
            reason = group.result.reason or reason
        training = [job for job in unit.jobs if not job.reused and job.number not in unit.ended]
        for job in training:
            result = results.get(job.number)
            job.progress |= {key: progress[key] for key in ("epoch", "epochs", "metric", "mode") if key in progress}
            job.seconds = unit.seconds / len(training)
            if result is not None and not is_refusal(result):
                unit.ended.add(job.number)
                job.value, job.seconds = result.value, result.seconds
                self._end(job, result.reason, unit)
        if group.result is None:
            return
        left = [job for job in training if job.number not in unit.ended]
        refused = [job for job in left if job.number in results and job.state is State.RUNNING]
        alone = {job.number for job in refused}
        lost = [job for job in left if job.number not in alone]
        for job in lost:
            self._set_end(job, reason)
        self.table.log_group_end(unit, lost, [str(results[job.number].reason) for job in refused])
        for job in refused:
            job.state, job.folder, job.seconds = State.WAITING, None, 0.0
            job.resumes = job.config is not None and RunFolder(Path(job.config["run_dir"])).config.exists()
        self.waiting += refused
        self._count = max(self._count, len(self.waiting) + len(self.running))

    def _end(self, job: Job, reason: str | None, group: JobGroup | None = None) -> None:
        """Set the final state of a job, and log it."""
        self._set_end(job, reason)
        self.table.log_end(job, group)

    @staticmethod
    def _set_end(job: Job, reason: str | None) -> None:
        job.reason = reason
        if reason is None:
            job.state = State.DONE  # even if the job was interrupted: the interrupt came too late
        elif job.state is State.RUNNING:
            job.state = State.FAILED

    def _interrupt(self) -> None:
        for group, unit in self.running.items():
            for job in _unfinished(unit):
                if job.state is State.RUNNING:
                    job.state = State.INTERRUPTED
            group.interrupt()
        for unit in self.waiting:
            for job in _unfinished(unit):
                job.state, job.reason = State.INTERRUPTED, "not started"
        try:
            while self.running:
                self._watch()
        except BaseException:  # a second Ctrl-C
            for group in self.running:
                group.kill()
            raise


def _unfinished(unit: Job | JobGroup) -> list[Job]:
    """Return a job, or the members of a group that were not done before this command."""
    return [job for job in unit.jobs if not job.reused] if isinstance(unit, JobGroup) else [unit]


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
    form_groups(sweep, jobs, {} if existing is None else existing.groups)
    if not sweep.is_search:  # a search is completed by its original command
        configs = [job.config for job in sweep.jobs]
        sweep.packages_to_trust = spawn.run_in_subprocess(trust.packages_to_trust, configs)  # it imports torch
    sweep.write_jobs()
    sweep.write()  # not earlier: an interrupt before this does not change the summary
    context.sweep = sweep
    with spawn.termination_raises_exit(), LiveTable(sweep) as table:
        table.log_existing(jobs)
        JobScheduler(JobLimits(sweep.n_jobs), sweep, jobs, table).run()
