"""A lesson's figure: on the left what happens in its runs, on the right where they end."""

from textwrap import wrap
from typing import TYPE_CHECKING, Any

from curriculum.lesson import Lesson, Panel
from curriculum.sight import Point
from curriculum.standings import standings
from losslab.analysis.compare import Group, MetricComparison
from losslab.io.figures import COLOURS
from losslab.io.metric_names import direction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# For eyes that see no colours.
_MARKERS = ("o", "s", "^", "D", "v", "P")

_LINES = ("-", "--", "-.", (0, (1, 1)), "-", "--")

Style = dict[str, tuple[str, str, Any]]
"""By a series' name, its colour, marker and line: the same on both sides."""


def draw(lesson: Lesson, groups: list[Group], points: list[Point]) -> "Figure":
    """The figure of kept numbers."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- pyplot would cost twice as much

    places = [(panel, standings(panel, groups)[0]) for panel in lesson.panels]
    style = _style([one.label for _, place in places for one in place.groups])
    lines = [len(place.groups) for _, place in places]
    figure = Figure(figsize=(9.6, max(4.0, 0.9 + sum(0.34 * count + 1.15 for count in lines))), dpi=130)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    figure.suptitle("\n".join(wrap(lesson.finding, 95)), fontsize="large", fontweight="bold", x=0.01, ha="left")
    grid = figure.add_gridspec(len(places), 2, height_ratios=[count + 2.4 for count in lines])
    _curves(figure.add_subplot(grid[:, 0]), lesson, points, style)
    for row, (panel, place) in enumerate(places):
        _ends(figure.add_subplot(grid[row, 1]), panel, place, style)
    return figure


def _style(names: list[str]) -> Style:
    known = list(dict.fromkeys(sorted(names)))
    return {name: (COLOURS[place], _MARKERS[place], _LINES[place]) for place, name in enumerate(known)}


def _curves(axes: "Axes", lesson: Lesson, points: list[Point], style: Style) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    sight = lesson.sight
    if sight.diagonal:
        axes.plot([0, 1], [0, 1], ":", color="#777777", label="as sure as right")
        axes.set_aspect("equal")
    for name in sorted(dict.fromkeys(point.series for point in points)):
        colour, marker, line = style[name]
        own = [point for point in points if point.series == name]
        x, mean = [point.x for point in own], [point.mean for point in own]
        low, high = [point.low for point in own], [point.high for point in own]
        axes.plot(
            x,
            mean,
            color=colour,
            linestyle=line,
            label=said(name),
            marker=marker if sight.points else None,
            markersize=5,
        )
        if sight.diagonal:
            ends = ([m - w for m, w in zip(mean, low, strict=True)], [w - m for m, w in zip(mean, high, strict=True)])
            axes.errorbar(x, mean, yerr=ends, color=colour, fmt="none", alpha=0.6)
        else:
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    if sight.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=not sight.diagonal))
    axes.set_xlabel(sight.x)
    axes.set_ylabel(sight.y)
    where = f"{sight.within}; " if sight.within else ""
    axes.set_title(f"{where}{sight.band}", fontsize="small", loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    below: dict[str, Any] = {"ncols": 2, "loc": "upper center", "bbox_to_anchor": (0.4, -0.12), "frameon": False}
    axes.legend(fontsize="small", **(below if "\n" in said(points[0].series) else {}))


def said(name: str) -> str:
    """A group's name, as narrow as it may be."""
    return name.replace("trainer.", "").replace("loss.", "").replace(" ", "\n")


def _ends(axes: "Axes", panel: Panel, place: MetricComparison, style: Style) -> None:
    """Seeds, means and intervals of each group in the first metric of a panel; the baseline is the first line."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    first = [one for one in place.groups if one is place.reference]
    groups = first + [one for one in place.groups if one is not place.reference]
    for row, one in enumerate(groups):
        values, found = [*one.values(place.metric).values()], place.estimate(one)
        colour, marker, _ = style[one.label]
        axes.plot(values, [row + 0.25] * len(values), "o", color=colour, alpha=0.4, markersize=4, markeredgewidth=0)
        if found is not None:
            axes.plot([found.low, found.high], [row, row], "|-", color=colour, linewidth=1.8, markersize=9)
        axes.plot(
            [found.mean if found is not None else values[0]],
            [row],
            marker,
            color=colour,
            markersize=5,
        )
        apart = place.difference(one)
        axes.annotate(
            apart.verdict if apart is not None else "baseline", (1, row), xycoords=("axes fraction", "data"),
            xytext=(5, 0), textcoords="offset points", va="center", fontsize="small", annotation_clip=False,
        )  # fmt: skip
    if place.ratios:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_yticks(range(len(groups)), [said(one.label) for one in groups])
    axes.set_ylim(len(groups) - 0.4, -0.6)
    mean = "geometric mean" if place.ratios else "mean"
    better = "higher" if direction(place.metric) == "max" else "lower"
    axes.set_xlabel(f"{place.metric} ({better} is better): seeds, {mean}, 95 % interval", fontsize="small")
    axes.set_title("\n".join(wrap(panel.title, 52)), fontsize="small", loc="left")
    axes.tick_params(labelsize="small")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
