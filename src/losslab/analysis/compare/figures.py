"""The figure of curves: a line for each group, a band for its seeds.

The figure of a comparison: seeds, means and intervals of each group, and beside them the differences.
"""

from collections.abc import Iterable, Sequence
from math import inf, log, log10
from textwrap import shorten, wrap
from typing import TYPE_CHECKING

from losslab.analysis.compare.curves import Curve, Histories, is_loss
from losslab.analysis.compare.differences import MetricComparison
from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.statistics import Estimate, GeometricEstimate, exp_or_inf
from losslab.analysis.compare.tables import best_mean, describe, group_labels
from losslab.analysis.compare.time_to_reach import Reach
from losslab.io.figures import COLOURS
from losslab.io.metric_names import direction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CURVE_COLOURS = (*COLOURS, "#B8A800")
_OTHERS = "#BBBBBB"
_TICKS = 7


def draw_curves(groups: Sequence[Group], found: Histories, reach: Reach | None = None) -> "Figure":
    """A panel for each quantity; losses relative to where each run started, as they share no unit.

    Args:
        groups: the best first: the first eight have colours, the others are grey.
        found: their histories.
        reach: drawn as a line in the panel of its metric.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    panels = [name for name in found.names if any(_curve(found, one, name) for one in groups)]
    lines = -(-len(panels) // 2)
    _, names = group_labels(groups)
    columns = 2 if max(map(len, names), default=0) > 24 else 4
    legend = -(-min(len(groups), len(_CURVE_COLOURS) + 1) // columns)
    figure = Figure(figsize=(8, 2.7 * max(1, lines) + 0.22 * legend + 0.35), dpi=200, layout="constrained")
    axes = figure.subplots(max(1, lines), min(2, max(1, len(panels))), squeeze=False).flatten()
    span = _span([epoch for name in panels for one in groups for epoch in _epochs(found, one, name)])
    for one, name in zip(axes, panels, strict=False):
        _panel(one, groups, found, name, reach if reach is not None and reach.metric == name else None)
        one.set_xlim(*span)
    for one in axes[len(panels) :]:
        one.set_visible(False)
    handles = _handles(groups, names)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize="small", frameon=False)
    figure.suptitle(
        "Mean over seeds; the band is from the lowest to the highest seed", fontsize="medium", x=0.01, ha="left"
    )
    return figure


def _curve(found: Histories, group: Group, name: str) -> Curve | None:
    return found.curve(group, name, relative=is_loss(name))


def _epochs(found: Histories, group: Group, name: str) -> Sequence[int]:
    curve = _curve(found, group, name)
    return curve.epochs if curve is not None else ()


def _span(epochs: Sequence[int]) -> tuple[float, float]:
    """What all panels show: all epochs of any, and a little beside them."""
    first, last = min(epochs, default=0), max(epochs, default=1)
    beside = 0.03 * (last - first) or 0.5
    return first - beside, last + beside


def ticks(epochs: Iterable[int]) -> list[int]:
    """Those of these epochs that are marked: all, if they are few, else round ones, else every so many."""
    known = sorted({*epochs})
    if len(known) <= _TICKS:
        return known
    for step in (factor * 10**exponent for exponent in range(16) for factor in (1, 2, 5)):
        round_ones = [epoch for epoch in known if epoch % step == 0]
        if len(round_ones) <= _TICKS:
            break
    return round_ones if len(round_ones) > 2 else known[:: -(-len(known) // _TICKS)]


def _panel(axes: "Axes", groups: Sequence[Group], found: Histories, name: str, reach: Reach | None) -> None:
    drawn = [(place, curve) for place, one in enumerate(groups) if (curve := _curve(found, one, name)) is not None]
    for place, curve in reversed(drawn):  # the best on top
        colour = _CURVE_COLOURS[place] if place < len(_CURVE_COLOURS) else _OTHERS
        marker = "." if len(curve.epochs) <= 30 else None
        axes.plot(curve.epochs, curve.mean, color=colour, linewidth=1.4, marker=marker, markersize=4)
        if place < len(_CURVE_COLOURS) and curve.seeds > 1:
            axes.fill_between(curve.epochs, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    lows = [value for _, curve in drawn for value in curve.low]
    if min(lows) > 0 and max(value for _, curve in drawn for value in curve.high) > 50 * min(lows):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    if reach is not None:
        _line(axes, reach)
    left_out = sum(bool(found.curve(one, name)) for one in groups) - len(drawn) if is_loss(name) else 0
    note = f"\n({left_out} that start at or below 0 left out)" if left_out else ""
    own = "each its own loss, relative to its first value" if is_loss(name) else ""
    axes.set_title(f"{name}" + (f": {own}{note}" if own else ""), fontsize="small", loc="left")
    axes.set_xlabel("Epochs", fontsize="small")
    axes.set_xticks(ticks(epoch for _, curve in drawn for epoch in curve.epochs))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize="small")


def _line(axes: "Axes", reach: Reach) -> None:
    """The value to reach, named beside the panel, where no curve is; without its line where that would squash them."""
    scale = log10 if axes.get_yscale() == "log" else float
    low, high = map(scale, axes.get_ylim())
    height = (scale(reach.value) - low) / (high - low) if scale is float or reach.value > 0 else -inf
    near = -1 <= height <= 2
    if near:
        axes.axhline(reach.value, color="black", linewidth=0.9, linestyle=":")
    outside = "" if near else "\n(above)" if height > 0 else "\n(below)"
    at, unit = (reach.value, "data") if near else (float(height > 0), "axes fraction")
    axes.annotate(
        f"to reach:\n{reach.value:g}{outside}", (1, at), xycoords=("axes fraction", unit), xytext=(3, 0),
        textcoords="offset points", ha="left", va="center", fontsize="x-small", annotation_clip=False,
    )  # fmt: skip


def _handles(groups: Sequence[Group], names: Sequence[str]) -> list[object]:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    handles: list[object] = [
        Line2D([], [], color=colour, label=shorten(name, 60))
        for colour, name in zip(_CURVE_COLOURS, names, strict=False)
    ]
    others = len(groups) - len(_CURVE_COLOURS)
    return [*handles, Line2D([], [], color=_OTHERS, label=f"{others} others")] if others > 0 else handles


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours; black for the reference, grey where nothing is claimed.
_COLOURS = {"better": "#009E73", "worse": "#D55E00", "": "#000000"}
_NEITHER = "#6E6E6E"
Interval = Estimate | GeometricEstimate | None
Window = tuple[float, float]
_MOST = 60
"""How many groups a figure can hold."""


def draw_metric(standing: MetricComparison) -> "Figure":
    """Groups from best to worst: seeds as dots, mean and 95 % interval; then the difference from the reference."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- pyplot would cost twice as much

    groups = [one for one in standing.groups if one.values(standing.metric)][:_MOST]
    both = bool(standing.differences)
    title = wrap(_title(standing), 78 if both else 60)
    height = 1.15 + 0.2 * len(title) + (0.42 if len(groups) <= 12 else 0.3) * len(groups)
    figure = Figure(figsize=(8, height), dpi=200, layout="constrained")
    axes = figure.subplots(1, 2 if both else 1, sharey=True, squeeze=False)[0]
    figure.suptitle("\n".join(title), fontsize="medium", fontweight="bold", x=0.01, ha="left")
    _seeds(axes[0], standing, groups)
    if both:
        _differences(axes[1], standing, groups)
    for one in axes:
        one.grid(axis="x", alpha=0.25)
        one.set_axisbelow(True)
        one.spines[["top", "right", "left"]].set_visible(False)
        one.tick_params(axis="y", length=0)
    return figure


def _title(standing: MetricComparison) -> str:
    left_out = len([one for one in standing.groups if one.values(standing.metric)]) - _MOST
    return describe(standing) + (f" (the {_MOST} best are drawn)" if left_out > 0 else "")


def _seeds(axes: "Axes", standing: MetricComparison, groups: list[Group]) -> None:
    head, names = group_labels(standing.groups)
    values = [[*one.values(standing.metric).values()] for one in groups]
    window = _window([value for own in values for value in own], ratios=standing.ratios)
    for row, (one, own) in enumerate(zip(groups, values, strict=True)):
        colour = _colour(standing, one)
        axes.plot(own, [row + 0.22] * len(own), "o", color=colour, alpha=0.35, markersize=4.5, markeredgewidth=0)
        _mark(axes, row, standing.mean(one), standing.estimate(one), colour, window)
    axes.set_yticks(range(len(groups)), ["\n".join(wrap(name, 32)) for name in names[: len(groups)]])
    axes.tick_params(axis="y", labelsize="small" if max(map(len, names)) > 20 else "medium")
    axes.set_title(head if head != "runs" else "", fontsize="small", loc="left", x=-0.02, ha="right")
    axes.set_ylim(len(groups) - 0.4, -0.6)
    if standing.ratios:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_formatter("{x:g}")
    better = "higher" if direction(standing.metric) == "max" else "lower"
    several = any(standing.estimate(one) is not None for one in groups)
    mean = "geometric mean" if standing.ratios else "mean"
    further = _further([standing.estimate(one) for one in groups], window)
    end = f"seeds, their {mean},\nits 95 % interval{further}" if several else "seeds"
    axes.set_xlabel(f"{standing.metric} ({better} is better):\n{end}", fontsize="small")


def _differences(axes: "Axes", standing: MetricComparison, groups: list[Group]) -> None:
    axes.xaxis.set_major_formatter("{x:g}")
    zero = 1 if standing.ratios else 0
    axes.axvline(zero, color="black", linewidth=0.9)
    if standing.ratios:
        axes.set_xscale("log")
    shown = [each for each in standing.differences if each.group in groups and each.mean is not None]
    window = _window([zero, *(each.mean for each in shown if each.mean is not None)], ratios=standing.ratios)
    for row, one in enumerate(groups):
        found, colour = standing.difference(one), _colour(standing, one)
        word = "no verdict" if found is None else found.verdict or "no verdict"
        if one is standing.reference:
            _mark(axes, row, zero, None, colour, window)
            word = "baseline" if standing.chosen else best_mean(standing.metric)
        elif found is not None and found.mean is not None:
            _mark(axes, row, found.mean, found.interval, colour, window)
        axes.annotate(
            word, (1, row), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            va="center", color=colour, fontsize="small", annotation_clip=False,
        )  # fmt: skip
    name = dict(zip(map(id, standing.groups), group_labels(standing.groups)[1], strict=True))[id(standing.reference)]
    end = (
        f",\npaired by seed,\ncorrected for {standing.family} comparisons"
        if standing.family > 1
        else ",\npaired by seed"
    ) + _further([each.interval for each in shown], window)
    against = "as a multiple of" if standing.ratios else "minus"
    axes.set_xlabel(
        f"{standing.metric} {against} that of {name if len(name) < 24 else 'the reference'}{end}", fontsize="small"
    )


def _mark(axes: "Axes", row: int, mean: float | None, interval: Interval, colour: str, window: Window) -> None:
    """A mean on its interval, of which an end outside the window is an arrow at its edge."""
    if mean is None:
        return
    if interval is not None:
        low, high = max(interval.low, window[0]), min(interval.high, window[1])
        axes.plot([low, high], [row, row], "-", color=colour, linewidth=1.8)
        for end, own, arrow in ((low, interval.low, "<"), (high, interval.high, ">")):
            axes.plot([end], [row], "|" if end == own else arrow, color=colour, markersize=9 if end == own else 5)
    axes.plot([mean], [row], "D", color=colour, markersize=4.5)


def _window(points: Sequence[float], *, ratios: bool) -> Window:
    """Where intervals are drawn. Of ratios they can reach beyond all numbers, beside which points would be one."""
    if not ratios:
        return -inf, inf
    low, high = log(min(points)), log(max(points))
    margin = log(100) + high - low
    return exp_or_inf(low - margin), exp_or_inf(high + margin)


def _further(intervals: Iterable[Interval], window: Window) -> str:
    outside = any(one is not None and (one.low < window[0] or one.high > window[1]) for one in intervals)
    return "\n(an arrow: it goes further)" if outside else ""


def _colour(standing: MetricComparison, group: Group) -> str:
    found = standing.difference(group)
    return _COLOURS[""] if group is standing.reference else _COLOURS.get(found.verdict if found else "none", _NEITHER)
