"""The table that closes a sweep."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from losslab.sweep import State, Sweep


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
