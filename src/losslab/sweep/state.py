"""What became of the jobs of a sweep: kept while it runs, and written to its summary.json.

Imports no torch.
"""

import contextlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from losslab import runs
from losslab.errors import LabError
from losslab.runs import RunFolder
from losslab.runs.sweep_summary import State

logger = logging.getLogger("losslab")


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
    before: bool = False
    """Whether an earlier call has done it, and this one only found it."""
    resumes: bool = False
    """Whether it goes on with the run that lies in its folder."""

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The final values of a run that is done: read once, as the summary is written every few seconds."""
        if self.folder is None:
            return {}
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, float] = json.loads(runs.read_text(RunFolder(self.folder).metrics))
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
        command: what was typed after the command's name, to complete the sweep if it ends early.
    """

    def __init__(self, folder: Path, command: Sequence[str] = ()) -> None:
        self.folder = folder
        self.command = list(command)
        self.jobs: list[Job] = []
        self.others: list[dict[str, Any]] = []
        """What is known of jobs whose runs lie there and that this command does not ask for."""
        self._written = 0.0
        self._told = False
        self._held = contextlib.ExitStack()

    def hold(self) -> None:
        """Have the folder to oneself as long as this process lives.

        Raises:
            LabError: another process runs a sweep in it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._held.enter_context(runs.lock(self.folder))

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

    def write(self, *, now: bool = True) -> bool:
        """Renew summary.json, at most every few seconds unless it must be `now` → whether it was not refused.

        That it cannot be written is said once, and ends no job: what is there names the command that completes them.

        Raises:
            LabError: it cannot be written and is not there yet, so that nothing could be completed.
        """
        if not now and time.monotonic() - self._written < 5:
            return True
        self._written = time.monotonic()
        rows = [*map(self._row, self.jobs), *self.others]
        counts = Counter(row["state"] for row in rows)
        content = {"command": self.command, "jobs": rows}
        summary = self.folder / runs.SUMMARY
        try:
            runs.write_json(summary, {str(state): counts[state] for state in State} | content)
        except OSError as error:
            self._bear(error, summary)
            return False
        return True

    def _bear(self, error: OSError, summary: Path) -> None:
        if self._told:
            return
        if not summary.is_file() or not summary.stat().st_size:
            raise LabError(
                f"cannot write {summary} ({error.strerror}): free some space, or set run_dir to a folder elsewhere"
            ) from error
        self._told = True
        logger.warning("%s was not written (%s): the one before is kept, the jobs go on", summary, error.strerror)

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


current: Sweep | None = None
"""The sweep of this process, if it runs one."""
resumes = False
"""In the process of a job: whether it goes on with the run that lies in its folder."""
