"""The live view of a sweep.

The table that closes a sweep.
"""

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich import get_console
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from losslab.io.terminal import printable
from losslab.runs.sweep_summary import State
from losslab.sweep.state import Job, Sweep

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

    def found(self, jobs: Sequence[Job]) -> None:
        """What an earlier call left of these jobs."""
        done, broken = sum(job.before for job in jobs), sum(job.resumes for job in jobs)
        if done or broken:
            new = len(jobs) - done - broken
            logger.info("%d jobs  %d done before, %d to resume, %d to start", len(jobs), done, broken, new)

    def started(self, job: Job) -> None:
        """A job has begun."""
        if not self._live.is_started:
            logger.info("job %d  %s  %s", job.number, "resumed" if job.resumes else "started", job.label)

    def ended(self, job: Job) -> None:
        """A job is over."""
        start = f"job {job.number}  {job.state}"
        if job.state is State.DONE:
            logger.info("%s in %.1f s  %s  %s", start, job.seconds, job.label, job.shown)
            return
        line = f"{start} after {job.seconds:.1f} s  {job.label}: {job.reason}"
        if self._live.is_started:  # what goes to stderr would fall into the middle of it
            self._live.console.print(printable(line), style="red", markup=False, highlight=False, soft_wrap=True)
        else:
            logger.error("%s", line)

    def refresh(self) -> None:
        """Draw it again."""
        if self._live.is_started:
            self._live.update(self._view(), refresh=True)

    def _view(self) -> Group:
        jobs = self.sweep.jobs
        running = [job for job in jobs if job.state is State.RUNNING]
        room = max(1, get_console().height - 3)
        table = Table.grid(padding=(0, 2))
        for column in range(5):
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=1 if column == 1 else None)
        for job in running[:room]:
            cells = (f"job {job.number}", job.label, _progress(job), job.shown, f"{job.seconds:.0f} s")
            table.add_row(*(escape(printable(cell)) for cell in cells))
        line = ", ".join(f"{count} {state}" for state, count in self.sweep.counts.items() if count)
        more = f" (the first {room} are shown)" if len(running) > room else ""
        return Group(table, Text(f"{len(jobs)} jobs: {line}{more}", style="bold", no_wrap=True, overflow="ellipsis"))


def _progress(job: Job) -> str:
    if "epoch" not in job.news:
        return "starting"
    epochs = str(job.news["epochs"])
    return f"epoch {job.news['epoch']:>{len(epochs)}}/{epochs}"


def table(sweep: Sweep, width: int) -> str:
    """A row for each job that began: what is its own, how it ended, its metric on validation and test.

    Why jobs failed stands below, and how many did not begin.
    """
    began = [job for job in sweep.jobs if job.folder is not None or job.state is State.FAILED]
    names = dict.fromkeys(str(job.news["metric"]) for job in began if "metric" in job.news)
    columns = [name for metric in names for name in dict.fromkeys((metric, f"test/{metric.partition('/')[2]}"))]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("job", "", "state", *columns, "seconds"):
        right = name in (*columns, "seconds", "job")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "", overflow="ellipsis")
    for job in began:
        metrics = job.metrics if job.state is State.DONE else {}
        values = [f"{metrics[name]:.4g}" if metrics.get(name) is not None else "" for name in columns]
        state = "done before" if job.before else job.state
        table.add_row(*map(escape, (str(job.number), job.label, state, *values, f"{job.seconds:.1f}")))
    console = Console(width=max(60, width), color_system=None)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().rstrip().splitlines()]
    lines += [f"job {job.number} {job.state}: {job.reason}" for job in began if job.reason not in (None, job.state)]
    if len(began) < len(sweep.jobs):
        lines.append(f"{len(sweep.jobs) - len(began)} jobs did not begin")
    return "\n".join(lines)
