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
from typing import Any, Literal, NamedTuple

from losslab import runs
from losslab.errors import LabError
from losslab.runs import RunFolder
from losslab.runs.sweep_summary import State
from losslab.training.fused import FusedMember

logger = logging.getLogger("losslab")

FUSED = "fused"
"""The folder in a sweep's folder that contains a folder for each group of jobs that train as one."""
Fuse = int | Literal["auto"] | None
"""The maximum number of jobs in a group; "auto": groups where they are faster; None: every job runs by itself."""


class JobCall(NamedTuple):
    """The function call that each process of a job makes."""

    function: Callable[..., Any]
    """The function to call, as `function(*arguments(), resumes)`; `resumes` says whether the job resumes a run."""
    arguments: Callable[[], tuple[Any, ...]]
    trainer: Any
    """The trainer configuration, which determines the number of processes and GPUs."""
    log: Path
    """The file for stdout and stderr of the job, in the run folder."""
    write_hydra_files: Callable[[], None] | None = None
    """A function that writes the folder .hydra for a job that trains in a group; None if nothing is to be written."""


@dataclass
class Job:
    """One job of a sweep."""

    number: int
    overrides: list[str]
    label: str = ""
    """The overrides of this job that not all jobs share, as text."""
    config: dict[str, Any] | None = None
    """The resolved configuration; None if the job cannot be composed or resolved."""
    task: JobCall | None = None
    """The function call that runs the job; None if the job cannot be composed."""
    state: State = State.WAITING
    folder: Path | None = None
    """The run folder, once the job has started."""
    reason: str | None = None
    """Why the job failed or was interrupted, in one line; None if it did neither."""
    seconds: float = 0.0
    value: Any = None
    """The metric that a sweeper optimises, which `task` returns."""
    progress: dict[str, Any] = field(default_factory=dict)
    """The newest progress that rank 0 reported: epoch, number of epochs, monitored metric and its value."""
    reused: bool = False
    """Whether an earlier command finished the job, so that its run is not trained again."""
    resumes: bool = False
    """Whether the job resumes the run in its folder."""
    group: int | None = None
    """The number of the group in which the job trains or trained; None if it runs by itself."""

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The final metrics of a finished job. They are read once, because write() needs them every few seconds."""
        return {} if self.folder is None else read_metrics(RunFolder(self.folder)) or {}

    @property
    def monitored_value(self) -> str:
        """The monitored metric as text: the newest value while the job runs, and the best epoch's once it is done."""
        name = self.progress.get("metric")
        value = self.metrics.get(str(name)) if self.state is State.DONE else self.progress.get("value")
        return _named_value(name, value)


def _named_value(name: Any, value: Any) -> str:
    return f"{name} {value:.4g}" if value is not None else ""


def read_metrics(run: RunFolder) -> dict[str, float] | None:
    """Return the final metrics of a run; None if the run is not finished or metrics.json is damaged."""
    with contextlib.suppress(OSError, ValueError):
        metrics = json.loads(runs.read_text(run.metrics))
        return metrics if isinstance(metrics, dict) else None
    return None


@dataclass(eq=False)
class JobGroup:
    """Jobs that train as one, in one process."""

    number: int
    jobs: list[Job]
    """All members in their original order, also those that are done."""
    folder: Path
    """The folder for the log of the group, and for its checkpoint while it trains."""
    label: str = ""
    """The overrides that its jobs share, but not all jobs of the sweep, as text."""
    is_running: bool = False
    seconds: float = 0.0
    progress: dict[str, Any] = field(default_factory=dict)
    """The newest progress of the group: epoch, number of epochs, monitored metric and its value."""
    ended: set[int] = field(default_factory=set)
    """The numbers of the jobs that have ended since this command started."""

    @property
    def log(self) -> Path:
        """The file for stdout and stderr of the group."""
        return RunFolder(self.folder).log

    @property
    def monitored_value(self) -> str:
        """The newest value of the monitored metric as text."""
        return _named_value(self.progress.get("metric"), self.progress.get("value"))

    def members(self) -> list[FusedMember]:
        """Return what `losslab.training.fused` needs of each job."""
        return [
            FusedMember(job.number, job.config, finished=job.reused, resumes=job.resumes)
            for job in self.jobs
            if job.config is not None
        ]


@dataclass
class Sweep:
    """The jobs of one sweep."""

    folder: Path
    command: Sequence[str] = ()
    """The command line of the sweep without the program."""
    is_search: bool = False
    """Whether the sweeper adds jobs in steps, as a search does. If not, all jobs are known before the first starts."""
    n_jobs: int | None = None
    """The maximum number of simultaneous jobs, as in `JobLimits`."""
    fuse: Fuse = None
    """The maximum number of jobs in a new group, see `Fuse`."""
    unfusable: str | None = None
    """Why no job can train in a group, whatever its configuration; None if it can."""
    jobs: list[Job] = field(default_factory=list)
    groups: list[JobGroup] = field(default_factory=list)
    other_rows: list[dict[str, Any]] = field(default_factory=list)
    """Rows of summary.json for runs in the folder that no job of this command took over."""
    packages_to_trust: list[str] = field(default_factory=list)
    """The packages that the user must trust to complete the sweep."""
    _written: float = 0.0
    _warned: bool = False
    _lock: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def lock(self) -> None:
        """Lock the folder until this process ends.

        Raises:
            LabError: another process runs a sweep in the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(runs.lock(self.folder))

    def add(self, overrides: Sequence[Sequence[str]], first: int, common: Sequence[str] = ()) -> list[Job]:
        """Add a job for each list of overrides, numbered from `first`, and return the added jobs.

        The labels of the jobs leave out the overrides in `common` and those that all added jobs share.
        """
        shared = set(common)
        if len(overrides) > 1:  # Hydra may spell a common override differently (True for true)
            shared.update(set.intersection(*map(set, overrides)))
        added = [Job(first + index, list(each)) for index, each in enumerate(overrides)]
        for job in added:
            job.label = " ".join(override for override in job.overrides if override not in shared)
        self.jobs += added
        return added

    def count(self, *states: State) -> int:
        """Return the number of jobs in these states."""
        return sum(job.state in states for job in self.jobs)

    def write_jobs(self) -> None:
        """Write jobs.json, from which `resume=` completes the sweep.

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
                "group": job.group,
            }
            for job in self.jobs
        ]
        file = self.folder / runs.JOBS
        try:
            runs.write_json(file, {"all_known": not self.is_search, "n_jobs": self.n_jobs, "jobs": jobs})
        except OSError as error:
            raise _no_space(file, error) from error

    def write(self, *, now: bool = True) -> bool:
        """Write summary.json, and return False if that failed. Without `now`, write at most every 5 seconds.

        Jobs continue after a failure, and only the first failure is logged.

        Raises:
            LabError: the file cannot be written and there is no earlier version.
        """
        if not now and time.monotonic() - self._written < 5:
            return True
        self._written = time.monotonic()
        rows = [*map(self._row, self.jobs), *self.other_rows]
        counts = Counter(row["state"] for row in rows)
        content = {str(state): counts[state] for state in State} | {"command": self.command, "jobs": rows}
        file = self.folder / runs.SUMMARY
        try:
            runs.write_json(file, content)
        except OSError as error:
            if not self._warned and not (file.is_file() and file.stat().st_size):
                raise _no_space(file, error) from error
            if not self._warned:
                logger.warning(
                    "cannot write %s (%s): its last version is kept, the jobs continue", file, error.strerror
                )
            self._warned = True
            return False
        return True

    def _row(self, job: Job) -> dict[str, Any]:
        return {
            "job": job.number,
            "overrides": job.overrides,
            "folder": None if job.folder is None else self._relative(job.folder),
            "state": job.state,
            "reason": job.reason,
            "seconds": round(job.seconds, 3),
            "value": job.value if isinstance(job.value, int | float) else None,
            "metrics": job.metrics if job.state is State.DONE else {},
        }

    def fused_folder(self, group: int) -> Path:
        """Return the folder of a group."""
        return self.folder / FUSED / str(group)

    def _relative(self, folder: Path) -> str:
        return os.path.relpath(folder, self.folder)


def _no_space(file: Path, error: OSError) -> LabError:
    return LabError(f"cannot write {file} ({error.strerror}): free some space, or set run_dir to another disk")
