"""The answers as tables for other programs."""

import csv
import io
from collections.abc import Iterable
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING

from losslab import durable, runs
from losslab.comparison.differences import Standing
from losslab.comparison.grouping import Group
from losslab.comparison.reading import Run
from losslab.terminal import printable

if TYPE_CHECKING:
    from losslab.comparison.comparing import Comparison

_GROUPS = (
    "metric", "scale", "group", "n", "mean", "low", "high", "reference", "pairs", "difference", "difference_low",
    "difference_high", "p", "level", "verdict",
)  # fmt: skip
_RUNS = ("group", "seed", "metric", "value", "note", "folder")

Row = tuple[object, ...]


def write(comparison: "Comparison", folder: Path) -> None:
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
    durable.put(file, printable(lines.getvalue()).encode())


def _group(standing: Standing, group: Group) -> Row:
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
