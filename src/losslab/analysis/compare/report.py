"""The answers as tables for other programs.

comparison.md, and the figures beside it.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING

from losslab import runs
from losslab.analysis.compare import tables
from losslab.analysis.compare.differences import MetricComparison
from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.read import Run
from losslab.analysis.compare.time_to_reach import Reach, words
from losslab.io import atomic
from losslab.io.terminal import printable

if TYPE_CHECKING:
    from losslab.analysis.compare.comparison import Comparison

_GROUPS = (
    "metric", "scale", "group", "n", "mean", "low", "high", "reference", "pairs", "difference", "difference_low",
    "difference_high", "p", "level", "verdict",
)  # fmt: skip
_RUNS = ("group", "seed", "metric", "value", "note", "folder")

Row = tuple[object, ...]


def write_csvs(comparison: "Comparison", folder: Path) -> None:
    """Write comparison.csv, a row for each metric and group, and runs.csv, a row for each metric and run.

    Nothing is rounded. What does not exist is empty, such as the interval of a single seed.
    """
    standings = comparison.standings.values()
    put(folder / "comparison.csv", _GROUPS, (_group(one, each) for one in standings for each in one.groups))
    put(folder / "runs.csv", _RUNS, (row for one in comparison.ordered for row in _runs(comparison, one)))


def put(file: Path, head: Iterable[str], rows: Iterable[Row]) -> None:
    """Write a table at once, in the place of a link too."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    atomic.write_bytes(file, printable(lines.getvalue()).encode())


def _group(standing: MetricComparison, group: Group) -> Row:
    own, apart, scale = (
        standing.estimate(group),
        standing.difference(group),
        "ratio" if standing.ratios else "difference",
    )
    span = (own.low, own.high) if own else (None, None)
    start = (standing.metric, scale, group.label, len(group.values(standing.metric)), standing.mean(group), *span)
    if apart is None:
        return (*start, *[None] * (len(_GROUPS) - len(start)))
    ends = (apart.interval.low, apart.interval.high) if apart.interval else (None, None)
    return (*start, apart.reference.label, apart.pairs, apart.mean, *ends, apart.p, apart.level, apart.verdict)


def _runs(comparison: "Comparison", group: Group) -> Iterable[Row]:
    for run in group.runs:
        for metric in comparison.metrics:
            yield _row(group, run, metric, run.metrics.get(metric))
    for run in group.repeated:
        for metric in comparison.metrics:
            yield _row(group, run, metric, run.metrics.get(metric), "not counted: a newer run has this seed")
    for run in group.flawed:
        yield _row(group, run, None, None, run.flaw)
    found = comparison.reach
    if found is None:
        return
    for one in (one for reached in found.groups if reached.group is group for one in reached.arrivals):
        what = f"epochs to {found.metric}={found.value:g}"
        yield _row(group, one.run, what, *((None, "not reached") if isinf(one.epoch) else (int(one.epoch), "")))


def _row(group: Group, run: Run, metric: str | None, value: float | None, note: str = "") -> Row:
    return group.label, run.seed, metric, value, note, runs.shown(run.folder.path)


if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from losslab.analysis.compare.comparison import Comparison

Section = tuple[str, str]
"""A heading, and what stands below it."""


def write_page(comparison: "Comparison", folder: Path, more: Sequence[Section] = ()) -> list[Path]:
    """Write the page, its figures and its tables → their paths. A link there is replaced by a file.

    Args:
        comparison: of at least one metric.
        folder: which exists.
        more: further sections of the page.
    """
    figures = {name_of(metric): comparison.figure(metric) for metric in comparison.metrics}
    if any(comparison.histories.names):
        figures["curves.png"] = comparison.curves_figure()
    for name, figure in figures.items():
        atomic.write_bytes(folder / name, png(figure))
    atomic.write_bytes(folder / "comparison.md", printable(text(comparison, more)).encode())
    write_csvs(comparison, folder)
    return [folder / name for name in ("comparison.md", "comparison.csv", "runs.csv", *figures)]


def png(figure: "Figure") -> bytes:
    """The file of a figure."""
    content = io.BytesIO()
    figure.savefig(content, metadata={"Software": None})
    return content.getvalue()


def name_of(metric: str) -> str:
    """The file of a metric's figure."""
    return f"{metric.replace('/', '-')}.png"


def text(comparison: "Comparison", more: Sequence[Section] = ()) -> str:
    """The page."""
    sections = [_metric(comparison, metric) for metric in comparison.metrics]
    if comparison.histories.names:
        sections.append(("Curves", "![Curves of all groups](curves.png)"))
    if comparison.reach is not None:
        sections.append((reach_title(comparison.reach), tables.markdown(reach_rows(comparison.reach))))
    sections += more
    if comparison.notes:
        sections.append(("How to read this", "\n".join(f"- {note}" for note in comparison.notes)))
    if comparison.flaws:
        sections.append(("Not counted", "\n".join(f"- {what}: {why}" for what, why in comparison.flaws)))
    return "\n\n".join([f"# {summary(comparison)}", *(f"## {title}\n\n{body}" for title, body in sections)]) + "\n"


def summary(comparison: "Comparison") -> str:
    """How much was found."""
    groups, runs = len(comparison.groups), sum(len(one.runs) for one in comparison.groups)
    return f"{runs} run{'s' * (runs != 1)} in {groups} group{'s' * (groups != 1)}"


def reach_title(found: Reach) -> str:
    """What is to be reached, and why that."""
    chosen = "" if found.asked else ", what the last of the groups reaches on average"
    return f"Time to reach {found.metric}={found.value:g}{chosen}"


def reach_rows(found: Reach) -> list[tuple[str, ...]]:
    """A head, and for each group how many reached it, and the median (and range) of epochs and seconds."""
    head, names = tables.group_labels([one.group for one in found.groups])
    rows = [(name, *words(one)) for name, one in zip(names, found.groups, strict=True)]
    return [(head, "reached by", "epochs: median (range)", "seconds: median (range)"), *rows]


def _metric(comparison: "Comparison", metric: str) -> Section:
    outcome = tables.describe(comparison.standings[metric])
    figure = f"![{outcome}]({name_of(metric)})"
    return metric, f"{outcome}.\n\n{figure}\n\n{comparison.table_markdown(metric)}"
