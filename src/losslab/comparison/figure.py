"""The figure of a comparison: seeds, means and intervals of each group, and beside them the differences."""

from collections.abc import Iterable, Sequence
from math import inf, log
from textwrap import wrap
from typing import TYPE_CHECKING

from losslab.comparison.differences import Standing
from losslab.comparison.grouping import Group
from losslab.comparison.statistics import Estimate, Factor, power
from losslab.comparison.tables import leads, named, outcome
from losslab.direction import direction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours; black for the reference, grey where nothing is claimed.
_COLOURS = {"better": "#009E73", "worse": "#D55E00", "": "#000000"}
_NEITHER = "#6E6E6E"
Interval = Estimate | Factor | None
Window = tuple[float, float]
_MOST = 60
"""How many groups a figure can hold."""


def draw(standing: Standing) -> "Figure":
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


def _title(standing: Standing) -> str:
    left_out = len([one for one in standing.groups if one.values(standing.metric)]) - _MOST
    return outcome(standing) + (f" (the {_MOST} best are drawn)" if left_out > 0 else "")


def _seeds(axes: "Axes", standing: Standing, groups: list[Group]) -> None:
    head, names = named(standing.groups)
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


def _differences(axes: "Axes", standing: Standing, groups: list[Group]) -> None:
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
            word = "baseline" if standing.chosen else leads(standing.metric)
        elif found is not None and found.mean is not None:
            _mark(axes, row, found.mean, found.interval, colour, window)
        axes.annotate(
            word, (1, row), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            va="center", color=colour, fontsize="small", annotation_clip=False,
        )  # fmt: skip
    name = dict(zip(map(id, standing.groups), named(standing.groups)[1], strict=True))[id(standing.reference)]
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
    return power(low - margin), power(high + margin)


def _further(intervals: Iterable[Interval], window: Window) -> str:
    outside = any(one is not None and (one.low < window[0] or one.high > window[1]) for one in intervals)
    return "\n(an arrow: it goes further)" if outside else ""


def _colour(standing: Standing, group: Group) -> str:
    found = standing.difference(group)
    return _COLOURS[""] if group is standing.reference else _COLOURS.get(found.verdict if found else "none", _NEITHER)
