"""The jobs of a running sweep, and their files jobs.json and summary.json. Imports no torch."""

import contextlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from losslab import runs
from losslab.errors import LabError
from losslab.runs import RunFolder
from losslab.runs.sweep_summary import State

logger = logging.getLogger("losslab")

_WRITE_EVERY = 5.0
"""The minimum number of seconds between two writes of summary.json."""


class JobCall(NamedTuple):
    """The function call that each process of a job makes."""

    function: Callable[..., Any]
    """The function, called with the arguments and whether the job resumes a run."""
    arguments: tuple[Any, ...]
    trainer: Any
    """The trainer configuration, which determines the number of processes and GPUs."""
    log: Path
    """The file for stdout and stderr of the job, in the run folder."""


@dataclass
class Job:
    """One job of a sweep."""

    number: int
    overrides: list[str]
    """The overrides of this job."""
    label: str = ""
    """The overrides that not all jobs share."""
    config: dict[str, Any] | None = None
    """The resolved configuration; None if the job cannot be composed or resolved."""
    composed: Any = None
    """The configuration as composed by Hydra, with the key `hydra`; None if the job was read from jobs.json."""
    task: JobCall | None = None
    """The function call that runs the job; None if the job cannot be composed."""
    state: State = State.WAITING
    folder: Path | None = None
    """The run folder, once the job has started."""
    reason: str | None = None
    """The reason of a failure, in one line."""
    seconds: float = 0.0
    value: Any = None
    """The result of the task: the metric that a sweeper optimises."""
    progress: dict[str, Any] = field(default_factory=dict)
    """The newest progress reported by rank 0."""
    done_before: bool = False
    """Whether an earlier command finished the job."""
    resumes: bool = False
    """Whether the job resumes the run in its folder."""

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The final metrics of a finished run. Read once: the summary is written every few seconds."""
        if self.folder is None:
            return {}
        with contextlib.suppress(OSError, ValueError):
            metrics: dict[str, float] = json.loads(runs.read_text(RunFolder(self.folder).metrics))
            return metrics
        return {}

    @property
    def monitored_value(self) -> str:
        """The monitored metric as text: of the newest epoch while the job runs, of the best epoch afterwards."""
        name = self.progress.get("metric")
        value = self.metrics.get(str(name)) if self.state is State.DONE else self.progress.get("value")
        return f"{name} {value:.4g}" if value is not None else ""


class Sweep:
    """The jobs of one sweep.

    Args:
        folder: the folder of the sweep.
        command: the command line of the sweep without the program.
        all_known: whether all jobs are known before the first one starts. A search chooses later jobs by earlier
            results.
        n_jobs: the number of simultaneous jobs, see `GpuSlots`.
    """

    def __init__(
        self, folder: Path, command: Sequence[str] = (), *, all_known: bool = True, n_jobs: int | None = None
    ) -> None:
        self.folder = folder
        self.command = list(command)
        self.all_known = all_known
        self.n_jobs = n_jobs
        self.jobs: list[Job] = []
        self.other_rows: list[dict[str, Any]] = []
        """Rows of summary.json for runs in the folder that are not among the jobs of this command."""
        self._written = 0.0
        self._warned = False
        self._lock = contextlib.ExitStack()

    def lock(self) -> None:
        """Lock the folder until this process ends.

        Raises:
            LabError: another process runs a sweep in the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(runs.lock(self.folder))

    def add(self, overrides: Sequence[Sequence[str]], first: int, common: Sequence[str] = ()) -> list[Job]:
        """Add jobs.

        Args:
            overrides: the overrides of each job.
            first: the number of the first job.
            common: the overrides on the command line.
        """
        added = [Job(first + index, list(each)) for index, each in enumerate(overrides)]
        # Hydra may spell a common override differently (True for true); such an override is shared by all jobs.
        shared = set(common).union(set.intersection(*map(set, overrides)) if len(added) > 1 else ())
        for job in added:
            job.label = " ".join(override for override in job.overrides if override not in shared)
        self.jobs += added
        return added

    @property
    def counts(self) -> dict[State, int]:
        """The number of jobs in each state."""
        return {state: sum(job.state is state for job in self.jobs) for state in State}

    @property
    def done(self) -> list[Job]:
        """The jobs that are done."""
        return [job for job in self.jobs if job.state is State.DONE]

    @property
    def unsuccessful(self) -> list[Job]:
        """The jobs that failed or were interrupted."""
        return [job for job in self.jobs if job.state in (State.FAILED, State.INTERRUPTED)]

    def write_jobs(self) -> None:
        """Write jobs.json, from which the sweep can be completed.

        Raises:
            LabError: the file cannot be written.
        """
        jobs = [
            {
                "job": job.number,
                "overrides": job.overrides,
                "folder": None if job.config is None else self._relative(Path(job.config["run_dir"])),
                "config": job.config,
                "reason": job.reason,
            }
            for job in self.jobs
        ]
        try:
            runs.write_json(self.folder / runs.JOBS, {"all_known": self.all_known, "n_jobs": self.n_jobs, "jobs": jobs})
        except OSError as error:
            raise _no_space(self.folder / runs.JOBS, error) from error

    def write(self, *, now: bool = True) -> bool:
        """Write summary.json, at most every few seconds unless `now`, and return whether it succeeded.

        A failure is reported once and does not end jobs.

        Raises:
            LabError: the file cannot be written and there is no earlier version.
        """
        if not now and time.monotonic() - self._written < _WRITE_EVERY:
            return True
        self._written = time.monotonic()
        rows = [*map(self._row, self.jobs), *self.other_rows]
        counts = Counter(row["state"] for row in rows)
        content = {"command": self.command, "jobs": rows}
        summary = self.folder / runs.SUMMARY
        try:
            runs.write_json(summary, {str(state): counts[state] for state in State} | content)
        except OSError as error:
            self._report(error, summary)
            return False
        return True

    def _report(self, error: OSError, summary: Path) -> None:
        if self._warned:
            return
        if not summary.is_file() or not summary.stat().st_size:
            raise _no_space(summary, error) from error
        self._warned = True
        logger.warning("cannot write %s (%s): its last version is kept, the jobs continue", summary, error.strerror)

    def _row(self, job: Job) -> dict[str, Any]:
        return {
            "job": job.number,
            "overrides": job.overrides,
            "folder": None if job.folder is None else self._relative(job.folder),
            "state": job.state,
            "reason": job.reason,
            "seconds": round(job.seconds, 3),
            "value": job.value if isinstance(job.value, int | float) and abs(job.value) < float("inf") else None,
            "metrics": job.metrics if job.state is State.DONE else {},
        }

    def _relative(self, folder: Path) -> str:
        return os.path.relpath(folder, self.folder)


def _no_space(file: Path, error: OSError) -> LabError:
    return LabError(f"cannot write {file} ({error.strerror}): free some space, or set run_dir to another disk")
