"""What became of the jobs of a sweep: kept while it runs, written to its summary.json, shown as a table at its end.

Imports no torch.
"""

import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from losslab import runs
from losslab.errors import LabError
from losslab.runs import RunFolder


class State(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass
class Job:
    """One job of a sweep."""

    number: int
    overrides: list[str]
    """What the command line asked for in this job."""
    label: str = ""
    """Those of them that are not asked for in all jobs."""
    state: State = State.WAITING
    folder: Path | None = None
    reason: str | None = None
    """Why it failed, in one line."""
    seconds: float = 0.0
    value: Any = None
    """What the task returned: the metric that a sweeper optimises."""
    news: dict[str, Any] = field(default_factory=dict)
    """What was last heard of its progress."""

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The final values of a run that is done: read once, as the summary is written every few seconds."""
        if self.folder is None:
            return {}
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, float] = json.loads(RunFolder(self.folder).metrics.read_text())
            return found
        return {}

    @property
    def shown(self) -> str:
        """The metric to look at: while the job runs its newest value, then that of the best epoch."""
        name = self.news.get("metric")
        value = self.metrics.get(str(name)) if self.state is State.DONE else self.news.get("value")
        return f"{name} {value:.4g}" if value is not None else ""


class Sweep:
    """The jobs of one sweep.

    Args:
        folder: of the sweep, which takes summary.json.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: list[Job] = []
        self._written = 0.0

    def refuse_another(self) -> None:
        """Leave what another sweep found alone, where hydra.sweep.dir names its folder.

        Raises:
            LabError: the folder holds the summary of a sweep.
        """
        file = self.folder / runs.SUMMARY
        if file.is_file() and file.stat().st_size:
            message = f"{self.folder} already holds a sweep: set run_dir to another folder"
            raise LabError(message)

    def add(self, overrides: Sequence[Sequence[str]], first: int, common: Sequence[str] = ()) -> list[Job]:
        """Take up more jobs, numbered from `first`; `common` is what was asked for in all of them."""
        added = [Job(first + place, list(given)) for place, given in enumerate(overrides)]
        # Hydra may write an override otherwise than the command line did (True for true): then all jobs share it.
        shared = set(common).union(set.intersection(*map(set, overrides)) if len(added) > 1 else ())
        for job in added:
            job.label = " ".join(override for override in job.overrides if override not in shared)
        self.jobs += added
        return added

    @property
    def counts(self) -> dict[State, int]:
        """How many jobs stand where."""
        return {state: sum(job.state is state for job in self.jobs) for state in State}

    @property
    def done(self) -> list[Job]:
        """The jobs that did what they were asked."""
        return [job for job in self.jobs if job.state is State.DONE]

    @property
    def bad(self) -> list[Job]:
        """The jobs that are over and not done."""
        return [job for job in self.jobs if job.state in (State.FAILED, State.INTERRUPTED)]

    def write(self, *, now: bool = True) -> None:
        """Renew summary.json; at most every few seconds unless it must be `now`."""
        if not now and time.monotonic() - self._written < 5:
            return
        self._written = time.monotonic()
        content: dict[str, Any] = {"jobs": [self._row(job) for job in self.jobs]}
        runs.write_json(
            self.folder / runs.SUMMARY, {str(state): count for state, count in self.counts.items()} | content
        )

    def _row(self, job: Job) -> dict[str, Any]:
        folder = os.path.relpath(job.folder, self.folder) if job.folder is not None else None
        return {
            "job": job.number,
            "overrides": job.overrides,
            "folder": folder,
            "state": job.state,
            "reason": job.reason,
            "seconds": round(job.seconds, 3),
            "value": job.value if isinstance(job.value, int | float) and abs(job.value) < float("inf") else None,
            "metrics": job.metrics if job.state is State.DONE else {},
        }

    def table(self, width: int) -> str:
        """A row for each job that began: what is its own, how it ended, its metric on validation and test.

        Why jobs failed stands below, and how many did not begin.
        """
        began = [job for job in self.jobs if job.folder is not None or job.state is State.FAILED]
        names = dict.fromkeys(str(job.news["metric"]) for job in began if "metric" in job.news)
        columns = [name for metric in names for name in dict.fromkeys((metric, f"test/{metric.partition('/')[2]}"))]
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for name in ("job", "", "state", *columns, "seconds"):
            right = name in (*columns, "seconds", "job")
            table.add_column(name, justify="right" if right else "left", no_wrap=name != "", overflow="ellipsis")
        for job in began:
            metrics = job.metrics if job.state is State.DONE else {}
            values = [f"{metrics[name]:.4g}" if metrics.get(name) is not None else "" for name in columns]
            table.add_row(*map(escape, (str(job.number), job.label, job.state, *values, f"{job.seconds:.1f}")))
        console = Console(width=max(60, width), color_system=None)
        with console.capture() as captured:
            console.print(table)
        lines = [line.rstrip() for line in captured.get().rstrip().splitlines()]
        lines += [f"job {job.number} {job.state}: {job.reason}" for job in began if job.reason not in (None, job.state)]
        if len(began) < len(self.jobs):
            lines.append(f"{len(self.jobs) - len(began)} jobs did not begin")
        return "\n".join(lines)


def jobs_of(folder: Path) -> list[dict[str, Any]]:
    """What the summary of a sweep says of each job; nothing where there is no summary.

    Raises:
        LabError: it is damaged.
    """
    file = folder / runs.SUMMARY
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        message = f"cannot read {file} ({error})"
        raise LabError(message) from error
    jobs = content.get("jobs") if isinstance(content, dict) else None
    if not isinstance(jobs, list) or not all(map(_is_job, jobs)):
        message = f"cannot read {file} (it holds something else than the jobs of a sweep)"
        raise LabError(message)
    return [job | {"state": State(job["state"])} for job in jobs]


def _is_job(row: Any) -> bool:
    """Whether it is what `Sweep` writes of a job, as far as it is read."""
    if not isinstance(row, dict):
        return False
    folder, asked, reason = row.get("folder"), row.get("overrides"), row.get("reason")
    return (
        isinstance(row.get("job"), int)
        and isinstance(asked, list)
        and all(isinstance(override, str) for override in asked)
        and (folder is None or (isinstance(folder, str) and "\0" not in folder))
        and (reason is None or isinstance(reason, str))
        and row.get("state") in [*State]
    )


current: Sweep | None = None
"""The sweep of this process, if it runs one."""
