"""The terminal output of a sweep: a live table of its running jobs, and a final table. Imports no torch."""

import logging
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

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
from losslab.sweep.state import Job, JobGroup, Sweep

logger = logging.getLogger("losslab")

_MAX_LINES = 10
"""The largest size of a group of which each job that is done gets a line of its own."""
_MAX_ROWS = 40
"""The largest number of jobs in the final table."""


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

    def log_start(self, unit: Job | JobGroup) -> None:
        """Log that a job or a group starts."""
        if self._live.is_started:
            return
        if isinstance(unit, JobGroup):
            resumed = any(job.reused or job.resumes for job in unit.jobs)
            text = f"group {unit.number}  {'resumed' if resumed else 'started'}  {_jobs(len(unit.jobs))}  {unit.label}"
            logger.info("%s", text.rstrip())
        else:
            logger.info("job %d  %s  %s", unit.number, "resumed" if unit.resumes else "started", unit.label)

    def log_end(self, job: Job, group: JobGroup | None = None) -> None:
        """Log how a job ended. In a large group, a job that is done or was interrupted with the others has no line."""
        if group is not None and len(group.jobs) > _MAX_LINES and job.state is not State.FAILED:
            return
        job_and_state = f"job {job.number}  {job.state}"
        if job.state is State.DONE:
            logger.info("%s in %.1f s  %s  %s", job_and_state, job.seconds, job.label, job.monitored_value)
            return
        self._log_error(f"{job_and_state} after {job.seconds:.1f} s  {job.label}: {job.reason}")

    def log_group_end(self, group: JobGroup, lost: Sequence[Job], refusals: Sequence[str]) -> None:
        """Log that a group ended.

        The jobs in `lost` ended with the group. `refusals` contains the reason of each job that will run alone.
        """
        for reason, count in Counter(job.reason for job in lost if job.state is State.FAILED).items():
            self._log_error(f"group {group.number}  {_jobs(count)} failed: {reason}")
        counts = Counter(job.state for job in group.jobs)
        text = ", ".join(f"{counts[state]} {state}" for state in State if counts[state] and state is not State.RUNNING)
        logger.info("group %d  ended after %.1f s  %s", group.number, group.seconds, text)
        for reason, count in Counter(refusals).items():
            logger.info("group %d  %s will run alone: %s", group.number, _jobs(count), reason)

    def _log_error(self, line: str) -> None:
        if self._live.is_started:  # a line on stderr would break the live table
            self._live.console.print(printable(line), style="red", markup=False, highlight=False, soft_wrap=True)
        else:
            logger.error("%s", line)

    def refresh(self) -> None:
        """Draw the table again."""
        if self._live.is_started:
            self._live.update(self._view(), refresh=True)

    def _view(self) -> Group:
        groups = [group for group in self.sweep.groups if group.is_running]
        in_groups = {group.number for group in groups}
        jobs = [job for job in self.sweep.jobs if job.state is State.RUNNING and job.group not in in_groups]
        running: list[Job | JobGroup] = [*groups, *jobs]
        height = max(1, get_console().height - 3)
        table = Table.grid(padding=(0, 2))
        for column in range(5):
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=1 if column == 1 else None)
        for unit in running[:height]:
            name, label = f"job {unit.number}", unit.label
            if isinstance(unit, JobGroup):
                name, label = f"group {unit.number}", f"{_jobs(len(unit.jobs))}  {unit.label}"
            cells = (name, label, _progress(unit.progress), unit.monitored_value, f"{unit.seconds:.0f} s")
            table.add_row(*(escape(printable(cell)) for cell in cells))
        counts = ", ".join(f"{self.sweep.count(state)} {state}" for state in State if self.sweep.count(state))
        cut = f" (the first {height} are shown)" if len(running) > height else ""
        total = f"{len(self.sweep.jobs)} jobs: {counts}{cut}"
        return Group(table, Text(total, style="bold", no_wrap=True, overflow="ellipsis"))


def _progress(progress: Mapping[str, Any]) -> str:
    if "epoch" not in progress:
        return "starting"
    epochs = str(progress["epochs"])
    return f"epoch {progress['epoch']:>{len(epochs)}}/{epochs}"


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _in_seconds(job: Job) -> str:
    """Return the duration of a job. That of a fused job is its share of the group's, often some milliseconds."""
    return format(job.seconds, ".2g" if 0 < job.seconds < 1 else ".1f")


def _final_table(sweep: Sweep) -> str:
    """Return a table of the jobs that started or failed: label, state, duration, monitored metric, and its test value.

    Below the table are the reasons why jobs failed or were interrupted, and the number of jobs that were not started.
    Of many jobs, only the first are shown.
    """
    shown = [job for job in sweep.jobs if job.folder is not None or job.state is State.FAILED]
    names = dict.fromkeys(str(job.progress["metric"]) for job in shown if "metric" in job.progress)
    columns = [name for metric in names for name in dict.fromkeys((metric, f"test/{metric.partition('/')[2]}"))]
    rows = [["job", "state", *columns, "seconds"]]
    for job in shown[:_MAX_ROWS]:
        metrics = job.metrics if job.state is State.DONE else {}
        values = [f"{metrics[name]:.4g}" if metrics.get(name) is not None else "" for name in columns]
        state = "done before" if job.reused else job.state
        rows.append([f"{job.number}  {job.label}", state, *values, _in_seconds(job)])
    lines = [terminal_table(rows, left=(0, 1))]
    if len(shown) > _MAX_ROWS:
        lines.append(f"... and {len(shown) - _MAX_ROWS} more jobs in {runs.SUMMARY}")
    explained = [job for job in shown if job.reason not in (None, job.state)]
    lines += [f"job {job.number} {job.state}: {job.reason}" for job in explained[:_MAX_ROWS]]
    if len(explained) > _MAX_ROWS:
        lines.append(f"... and {len(explained) - _MAX_ROWS} more reasons in {runs.SUMMARY}")
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
    if sweep.count(State.DONE) > 1:
        compare = shlex.join(["losslab", "compare", str(runs.display_path(sweep.folder))])
        logger.info("compare     %s    (each row of the table is 1 seed)", compare)
    unsuccessful = sweep.count(State.FAILED, State.INTERRUPTED)
    if unsuccessful:
        logger.error("%d of %d jobs are not done; to complete them: %s", unsuccessful, len(sweep.jobs), again)
    elif not written:
        logger.error("%s does not record that all jobs are done: free some space, then %s", summary, again)
    return written and not unsuccessful
