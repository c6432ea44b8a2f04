"""The live view of a sweep."""

import logging
from types import TracebackType
from typing import Self

from rich import get_console
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from losslab.sweep import Job, State, Sweep

logger = logging.getLogger("losslab")


class Board:
    """Shows the jobs that run with their epoch and metric; those that are over leave a line above.

    Without a terminal only these lines appear, and one for each job that starts.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._live = Live(console=get_console(), auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if get_console().is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def started(self, job: Job) -> None:
        """A job has begun."""
        if not self._live.is_started:
            logger.info("job %d  started  %s", job.number, job.label)

    def ended(self, job: Job) -> None:
        """A job is over."""
        if job.state is State.DONE:
            logger.info("job %d  done in %.1f s  %s  %s", job.number, job.seconds, job.label, job.shown)
        else:
            logger.error("job %d  %s after %.1f s  %s: %s", job.number, job.state, job.seconds, job.label, job.reason)

    def refresh(self) -> None:
        """Draw it again."""
        if self._live.is_started:
            self._live.update(self._view(), refresh=True)

    def _view(self) -> Group:
        jobs = self.sweep.jobs
        running = [job for job in jobs if job.state is State.RUNNING]
        room = max(1, get_console().height - 4)
        table = Table.grid(padding=(0, 2))
        for job in running[:room]:
            cells = (f"job {job.number}", job.label, _progress(job), job.shown, f"{job.seconds:.0f} s")
            table.add_row(*map(escape, cells))
        counts = {state: sum(job.state is state for job in jobs) for state in State}
        line = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        return Group(table, Text(f"{len(jobs)} jobs: {line}", style="bold"))


def _progress(job: Job) -> str:
    if "epoch" not in job.news:
        return "starting"
    epoch = f"epoch {job.news['epoch']}/{job.news['epochs']}"
    batches = job.news.get("batches", 0)
    return f"{epoch}, batch {job.news['batch']}/{batches}" if batches > 1 else epoch
