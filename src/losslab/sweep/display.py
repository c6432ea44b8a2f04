"""The terminal output of a sweep: a live table of its running jobs, and a final table. Imports no torch."""

import logging
from collections.abc import Sequence
from typing import Self

from rich import get_console
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from losslab import runs
from losslab.io.tables import terminal_table
from losslab.io.terminal import printable
from losslab.runs.sweep_summary import State
from losslab.sweep.resume import completing_command
from losslab.sweep.state import Job, Sweep

logger = logging.getLogger("losslab")


class LiveTable:
    """Shows the running jobs with their epoch and metric, and logs a line for each job that ends.

    If stdout is not a terminal, there is no table, and a line is also logged for each job that starts.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._live = Live(console=get_console(), auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if get_console().is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def log_existing(self, jobs: Sequence[Job]) -> None:
        """Log how many of these jobs an earlier command finished, and how many will be resumed, unless both are 0."""
        done, resumed = sum(job.reused for job in jobs), sum(job.resumes for job in jobs)
        if done or resumed:
            new = len(jobs) - done - resumed
            logger.info("%d jobs  %d done before, %d to resume, %d to start", len(jobs), done, resumed, new)

    def log_start(self, job: Job) -> None:
        """Log that a job starts."""
        if not self._live.is_started:
            logger.info("job %d  %s  %s", job.number, "resumed" if job.resumes else "started", job.label)

    def log_end(self, job: Job) -> None:
        """Log how a job ended."""
        job_and_state = f"job {job.number}  {job.state}"
        if job.state is State.DONE:
            logger.info("%s in %.1f s  %s  %s", job_and_state, job.seconds, job.label, job.monitored_value)
            return
        line = f"{job_and_state} after {job.seconds:.1f} s  {job.label}: {job.reason}"
        if self._live.is_started:  # a line on stderr would break the live table
            self._live.console.print(printable(line), style="red", markup=False, highlight=False, soft_wrap=True)
        else:
            logger.error("%s", line)

    def refresh(self) -> None:
        """Draw the table again."""
        if self._live.is_started:
            self._live.update(self._view(), refresh=True)

    def _view(self) -> Group:
        running = [job for job in self.sweep.jobs if job.state is State.RUNNING]
        height = max(1, get_console().height - 3)
        table = Table.grid(padding=(0, 2))
        for column in range(5):
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=1 if column == 1 else None)
        for job in running[:height]:
            cells = (f"job {job.number}", job.label, _progress(job), job.monitored_value, f"{job.seconds:.0f} s")
            table.add_row(*(escape(printable(cell)) for cell in cells))
        counts = ", ".join(f"{self.sweep.count(state)} {state}" for state in State if self.sweep.count(state))
        cut = f" (the first {height} are shown)" if len(running) > height else ""
        total = f"{len(self.sweep.jobs)} jobs: {counts}{cut}"
        return Group(table, Text(total, style="bold", no_wrap=True, overflow="ellipsis"))


def _progress(job: Job) -> str:
    if "epoch" not in job.progress:
        return "starting"
    epochs = str(job.progress["epochs"])
    return f"epoch {job.progress['epoch']:>{len(epochs)}}/{epochs}"


def _final_table(sweep: Sweep) -> str:
    """Return a table of the jobs that started or failed: label, state, duration, monitored metric, and its test value.

    Below the table are the reasons why jobs failed or were interrupted, and the number of jobs that were not started.
    """
    shown = [job for job in sweep.jobs if job.folder is not None or job.state is State.FAILED]
    names = dict.fromkeys(str(job.progress["metric"]) for job in shown if "metric" in job.progress)
    columns = [name for metric in names for name in dict.fromkeys((metric, f"test/{metric.partition('/')[2]}"))]
    rows = [["job", "state", *columns, "seconds"]]
    for job in shown:
        metrics = job.metrics if job.state is State.DONE else {}
        values = [f"{metrics[name]:.4g}" if metrics.get(name) is not None else "" for name in columns]
        state = "done before" if job.reused else job.state
        rows.append([f"{job.number}  {job.label}", state, *values, f"{job.seconds:.1f}"])
    lines = [terminal_table(rows, left=(0, 1))]
    lines += [f"job {job.number} {job.state}: {job.reason}" for job in shown if job.reason not in (None, job.state)]
    if len(shown) < len(sweep.jobs):
        lines.append(f"{len(sweep.jobs) - len(shown)} jobs were not started")
    return "\n".join(lines)


def close(sweep: Sweep | None) -> bool:
    """Write and log the final state of a sweep, if any, and how to complete it. Return whether all jobs are done."""
    if sweep is None:
        return True
    written = sweep.write()
    logger.info("%s", _final_table(sweep))
    summary, again = runs.display_path(sweep.folder / runs.SUMMARY), completing_command(sweep)
    if written:
        logger.info("summary     %s", summary)
    unsuccessful = sweep.count(State.FAILED, State.INTERRUPTED)
    if unsuccessful:
        logger.error("%d of %d jobs are not done; to complete them: %s", unsuccessful, len(sweep.jobs), again)
    elif not written:
        logger.error("%s does not record that all jobs are done: free some space, then %s", summary, again)
    return written and not unsuccessful
