"""Figure of a lesson: curves of its runs on the left, final values of each panel on the right."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from losslab.analysis.compare import Group, MetricComparison
from losslab.analysis.compare.tables import seed_counts
from losslab.io.figures import GREY, loss_styles, new_figure, save_png, set_integer_ticks
from losslab.io.metric_names import direction
from pages.experiments import Records, Result
from pages.lessons.curves import Point, read_points
from pages.lessons.lesson import Lesson, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "^", "D", "v", "P")

Style = dict[str, tuple[str, str, Any]]
"""Label → (colour, marker, line style), the same in both halves of the figure."""


def write_figures(lessons: Iterable[Lesson], results: Sequence[Result], records: Records, folder: Path) -> None:
    """Write NAME.png for each lesson that has results."""
    for lesson in (lesson for lesson in lessons if lesson.name in records):
        figure = draw(lesson, lesson.groups(results), read_points(folder / f"{lesson.name}.csv"))
        save_png(figure, folder / f"{lesson.name}.png")


def draw(lesson: Lesson, groups: Sequence[Group], points: Sequence[Point]) -> "Figure":
    """Draw the figure of a lesson from recorded results and curves."""
    comparisons = [panel.compare(groups)[0] for panel in lesson.panels]
    names = {group.label: group.loss_label for comparison in comparisons for group in comparison.groups}
    lines = zip(sorted(names), loss_styles([names[label] for label in sorted(names)]), _MARKERS, strict=False)
    style = {label: (line["color"], marker, line["linestyle"]) for label, line, marker in lines}
    counts = [len(comparison.groups) for comparison in comparisons]
    figure = new_figure(9.6, max(4.0, 0.9 + sum(0.34 * count + 1.15 for count in counts)), dpi=130, layout=None)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    figure.suptitle("\n".join(wrap(lesson.finding, 95)), fontsize="large", fontweight="bold", x=0.01, ha="left")
    grid = figure.add_gridspec(len(counts), 2, height_ratios=[count + 2.4 for count in counts])
    _draw_curves(figure.add_subplot(grid[:, 0]), lesson, points, style)
    for row, (panel, comparison) in enumerate(zip(lesson.panels, comparisons, strict=True)):
        _draw_final(figure.add_subplot(grid[row, 1]), panel, comparison, style)
    return figure


def short_label(label: str) -> str:
    """Shorten a label: one override per line, without the config group."""
    return label.replace("trainer.", "").replace("loss.", "").replace(" ", "\n")


def _draw_curves(axes: "Axes", lesson: Lesson, points: Sequence[Point], style: Style) -> None:
    spec = lesson.curves
    if spec.diagonal:
        axes.plot([0, 1], [0, 1], ":", color=GREY, label="perfect calibration")
        axes.set_aspect("equal")
    for label in sorted({point.series for point in points}):
        colour, marker, line = style[label]
        own = [point for point in points if point.series == label]
        x, mean = [point.x for point in own], [point.mean for point in own]
        axes.plot(
            x, mean, color=colour, linestyle=line, label=short_label(label), marker=marker if spec.markers else None,
            markersize=5,
        )  # fmt: skip
        if spec.diagonal:
            ends = ([point.mean - point.low for point in own], [point.high - point.mean for point in own])
            axes.errorbar(x, mean, yerr=ends, color=colour, fmt="none", alpha=0.6)
        else:
            low, high = [point.low for point in own], [point.high for point in own]
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    if spec.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    if not spec.diagonal:
        set_integer_ticks(axes)
    axes.set_xlabel(spec.x_label)
    axes.set_ylabel(spec.y_label)
    axes.set_title(f"{spec.within}; {spec.band}" if spec.within else spec.band, fontsize="small", loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    below: dict[str, Any] = {"ncols": 2, "loc": "upper center", "bbox_to_anchor": (0.4, -0.12), "frameon": False}
    axes.legend(fontsize="small", **(below if "\n" in short_label(points[0].series) else {}))


def _draw_final(axes: "Axes", panel: Panel, comparison: MetricComparison, style: Style) -> None:
    """Draw the seeds, mean and interval of each group in one metric; the baseline is the first row."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    groups = sorted(comparison.groups, key=lambda group: group is not comparison.reference)
    for row, group in enumerate(groups):
        values, estimate = [*group.values(comparison.metric).values()], comparison.estimate(group)
        colour, marker, _ = style[group.label]
        axes.plot(values, [row + 0.25] * len(values), "o", color=colour, alpha=0.4, markersize=4, markeredgewidth=0)
        if estimate is not None:
            axes.plot([estimate.low, estimate.high], [row, row], "|-", color=colour, linewidth=1.8, markersize=9)
        axes.plot([estimate.mean if estimate is not None else values[0]], [row], marker, color=colour, markersize=5)
        difference = comparison.difference(group)
        axes.annotate(
            difference.verdict if difference is not None else "baseline", (1, row),
            xycoords=("axes fraction", "data"), xytext=(5, 0), textcoords="offset points", va="center",
            fontsize="small", annotation_clip=False,
        )  # fmt: skip
    if comparison.ratios:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_yticks(range(len(groups)), [short_label(group.label) for group in groups])
    axes.set_ylim(len(groups) - 0.4, -0.6)
    mean = "geometric mean" if comparison.ratios else "mean"
    better = "higher" if direction(comparison.metric) == "max" else "lower"
    seeds = seed_counts([len(group.values(comparison.metric)) for group in groups])
    axes.set_xlabel(f"{comparison.metric} ({better} is better): {seeds}, {mean}, 95 % interval", fontsize="small")
    axes.set_title("\n".join(wrap(panel.title, 52)), fontsize="small", loc="left")
    axes.tick_params(labelsize="small")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
