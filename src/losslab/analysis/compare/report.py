"""Files of a comparison: comparison.md with its figures, comparison.csv and runs.csv."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import isinf
from pathlib import Path

from losslab import runs
from losslab.analysis.compare import tables
from losslab.analysis.compare.comparison import Comparison
from losslab.analysis.compare.curves import TimeToReach
from losslab.analysis.compare.differences import MetricComparison
from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.read import Run
from losslab.analysis.compare.statistics import Estimate, GeometricEstimate
from losslab.io import atomic
from losslab.io.figures import save_png
from losslab.io.tables import markdown_table, write_csv
from losslab.io.terminal import printable

Section = tuple[str, str]
"""A heading, and the Markdown text below it."""
Row = tuple[object, ...]

_TABLES = ("comparison.csv", "runs.csv", "matrix.csv")
_COMPARISON_COLUMNS = (
    "metric", "scale", "group", "n", "mean", "low", "high", "reference", "pairs", "difference", "difference_low",
    "difference_high", "p", "level", "verdict",
)  # fmt: skip


def write_report(comparison: Comparison, folder: Path, sections: Sequence[Section] = ()) -> list[Path]:
    """Write all files of a comparison into an existing folder, and return their paths. Symbolic links are replaced."""
    figures = {figure_name(metric): comparison.figure(metric) for metric in comparison.metrics}
    if comparison.histories.names:
        figures["curves.png"] = comparison.curves_figure()
    for name, figure in figures.items():
        save_png(figure, folder / name)
    atomic.write_bytes(folder / "comparison.md", printable(page(comparison, sections)).encode())
    rows = [_comparison_row(each, group) for each in comparison.by_metric.values() for group in each.groups]
    write_csv(folder / "comparison.csv", _COMPARISON_COLUMNS, rows)
    rows = [row for group in comparison.ordered for row in _run_rows(comparison, group)]
    write_csv(folder / "runs.csv", ("group", "seed", "metric", "value", "note", "folder"), rows)
    return [folder / name for name in ("comparison.md", "comparison.csv", "runs.csv", *figures)]


def remove_old_files(folder: Path) -> None:
    """Remove the tables, the figures and the events of an earlier comparison, which another one may not replace."""
    page_file = folder / "comparison.md"
    if not page_file.is_file():
        return
    figures = re.findall(r"\]\(([\w.@+-]+\.png)\)", page_file.read_text(errors="replace"))
    for path in [*map(folder.joinpath, (*_TABLES, *figures)), *folder.glob("tensorboard/*/events.out.tfevents.*")]:
        if not any(part.is_symlink() for part in (path.parent, path.parent.parent)):
            path.unlink(missing_ok=True)
    for events in folder.glob("tensorboard/*/"):
        with suppress(OSError):  # it contains files that are not from a comparison, or is a link
            events.rmdir()
    with suppress(OSError):
        (folder / "tensorboard").rmdir()


def figure_name(metric: str) -> str:
    """Return the file name of the figure of a metric."""
    return f"{metric.replace('/', '-')}.png"


def page(comparison: Comparison, sections: Sequence[Section] = ()) -> str:
    """Return the text of comparison.md, with additional sections after those of the comparison itself."""
    parts = []
    for metric in comparison.metrics:
        finding = tables.finding(comparison.by_metric[metric])
        figure = f"![{finding}]({figure_name(metric)})"
        parts.append((metric, f"{finding}.\n\n{figure}\n\n{comparison.table_markdown(metric)}"))
    if comparison.histories.names:
        curves = tables.curves_finding(comparison.groups, comparison.time_to_reach)
        parts.append(("Curves", f"![{curves}](curves.png)"))
    reach = comparison.time_to_reach
    if reach is not None:
        parts.append((reach_title(reach), markdown_table(reach_rows(reach))))
    parts += sections
    if comparison.notes:
        parts.append(("How to read this", "\n".join(f"- {note}" for note in comparison.notes)))
    if comparison.not_counted:
        parts.append(("Not counted", "\n".join(f"- {what}: {why}" for what, why in comparison.not_counted)))
    return "\n\n".join([f"# {summary(comparison)}", *(f"## {title}\n\n{body}" for title, body in parts)]) + "\n"


def summary(comparison: Comparison) -> str:
    """Return the number of runs and groups, such as "6 runs in 2 groups"."""
    groups, count = len(comparison.groups), sum(len(group.runs) for group in comparison.groups)
    return f"{count} run{'s' * (count != 1)} in {groups} group{'s' * (groups != 1)}"


def reach_title(reach: TimeToReach) -> str:
    """Return the heading of the table of `reach_rows`. It explains the value to reach if no value was requested."""
    default = "" if reach.requested else ", which the worst group reaches on average"
    return f"Time to reach {reach.metric}={reach.value:g}{default}"


def reach_rows(reach: TimeToReach) -> list[tuple[str, ...]]:
    """Return a header and a row per group: how many runs reached the value, median epochs and median seconds."""
    head, labels = tables.group_labels([time.group for time in reach.times])
    rows = [(label, *time.cells()) for label, time in zip(labels, reach.times, strict=True)]
    return [(head, "reached by", "epochs: median (range)", "seconds: median (range)"), *rows]


def _comparison_row(comparison: MetricComparison, group: Group) -> Row:
    """Return an unrounded row of comparison.csv; None for missing values, such as an interval of one seed."""
    scale, count = "ratio" if comparison.ratios else "difference", len(group.values(comparison.metric))
    ends = _ends(comparison.estimate(group))
    row = (comparison.metric, scale, group.label, count, comparison.mean(group), *ends)
    diff = comparison.difference(group)
    if diff is None:
        return (*row, *[None] * (len(_COMPARISON_COLUMNS) - len(row)))
    found = (diff.reference.label, diff.pairs, diff.mean, *_ends(diff.interval), diff.p, diff.level, diff.verdict)
    return (*row, *found)


def _ends(interval: Estimate | GeometricEstimate | None) -> Row:
    return (interval.low, interval.high) if interval else (None, None)


def _run_rows(comparison: Comparison, group: Group) -> Iterator[Row]:
    notes = dict.fromkeys(group.runs, "") | dict.fromkeys(group.repeated, "not counted: a newer run has this seed")
    cells: list[tuple[Run, str | None, float | None, str]] = [
        (run, metric, run.metrics.get(metric), note) for run, note in notes.items() for metric in comparison.metrics
    ]
    cells += [(run, None, None, run.problem) for run in group.excluded]
    reach = comparison.time_to_reach
    if reach is not None:
        name = f"epochs to {reach.metric}={reach.value:g}"
        for time in (time for each in reach.times if each.group is group for time in each.runs):
            epochs, note = (None, "not reached") if isinf(time.epoch) else (int(time.epoch), "")
            cells.append((time.run, name, epochs, note))
    for run, *row in cells:
        yield group.label, run.seed, *row, runs.display_path(run.folder.path)
