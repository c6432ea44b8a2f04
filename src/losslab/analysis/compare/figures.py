"""Figures of a comparison: seeds, means and differences of a metric, and curves of all groups."""

from collections.abc import Iterable, Sequence
from math import inf, log, log10
from textwrap import fill, shorten, wrap
from typing import TYPE_CHECKING, Any

from losslab.analysis.compare.curves import Curve, Histories, TimeToReach, is_loss
from losslab.analysis.compare.differences import MetricComparison
from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.statistics import Estimate, GeometricEstimate, exp_or_inf
from losslab.analysis.compare.tables import best_mean, curves_finding, finding, group_labels
from losslab.io.figures import GREY, loss_styles, new_figure, set_integer_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Interval = Estimate | GeometricEstimate | None
Window = tuple[float, float]

_UNDECIDED = {"not distinguishable", "equal", "no verdict"}
_MAX_GROUPS = 60
_MAX_COLOURED = 8
_OTHER_CURVES = "#BBBBBB"
_LONGEST_NAME = 26
"""The largest number of characters of a group's name in a title."""


def draw_metric(comparison: MetricComparison) -> "Figure":
    """Draw groups from best to worst: seeds as dots, mean and 95 % interval, and the differences from the reference."""
    groups = [group for group in comparison.groups if group.values(comparison.metric)][:_MAX_GROUPS]
    both = bool(comparison.differences)
    figure = new_figure(8, 1.35 + (0.42 if len(groups) <= 12 else 0.3) * len(groups), dpi=200)
    panels = figure.subplots(1, 2 if both else 1, sharey=True, squeeze=False)[0]
    _set_title(figure, finding(comparison, _LONGEST_NAME))
    for axes in panels:
        if comparison.ratios:
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    _draw_seeds(panels[0], comparison, groups)
    if both:
        _draw_differences(panels[1], comparison, groups)
    return figure


def _draw_seeds(axes: "Axes", comparison: MetricComparison, groups: list[Group]) -> None:
    head, labels = group_labels(comparison.groups)
    values = [[*group.values(comparison.metric).values()] for group in groups]
    estimates = [comparison.estimate(group) for group in groups]
    window = _window([value for seeds in values for value in seeds], ratios=comparison.ratios)
    colours = _colours(comparison)
    for row, (group, seeds, estimate) in enumerate(zip(groups, values, estimates, strict=True)):
        colour = colours[group]
        axes.plot(seeds, [row + 0.22] * len(seeds), "o", color=colour, alpha=0.35, markersize=4.5, markeredgewidth=0)
        _draw_interval(axes, row, comparison.mean(group), estimate, colour, window)
    axes.set_yticks(range(len(groups)), ["\n".join(wrap(label, 32)) for label in labels[: len(groups)]])
    axes.tick_params(axis="y", labelsize="small" if max(map(len, labels)) > 20 else "medium")
    if head != "runs":
        axes.annotate(
            head, (0, 1), xycoords="axes fraction", xytext=(-6, 6), textcoords="offset points", ha="right",
            fontsize="small", annotation_clip=False,
        )  # fmt: skip
    axes.set_ylim(len(groups) - 0.4, -0.6)
    better = "higher" if comparison.better == "max" else "lower"
    mean = "geometric mean" if comparison.ratios else "mean"
    several = any(estimate is not None for estimate in estimates)
    legend = f"seeds, their {mean},\nits 95 % interval{_arrow_legend(estimates, window)}" if several else "seeds"
    left_out = len(comparison.values) - len(groups)
    legend += f"\n(the {len(groups)} best of {len(comparison.values)} groups)" if left_out else ""
    axes.set_xlabel(f"{comparison.metric} ({better} is better):\n{legend}", fontsize="small")


def _draw_differences(axes: "Axes", comparison: MetricComparison, groups: list[Group]) -> None:
    zero = 1 if comparison.ratios else 0
    axes.axvline(zero, color="black", linewidth=0.9)
    shown = [each for each in comparison.differences if each.group in groups and each.mean is not None]
    window = _window([zero, *(each.mean for each in shown if each.mean is not None)], ratios=comparison.ratios)
    colours = _colours(comparison)
    for row, group in enumerate(groups):
        difference, colour = comparison.difference(group), colours[group]
        word = "no verdict" if difference is None else difference.verdict or "no verdict"
        if group is comparison.reference:
            _draw_interval(axes, row, zero, None, colour, window)
            word = "baseline" if comparison.has_baseline else fill(best_mean(comparison), 16)
        elif difference is not None and difference.mean is not None:
            _draw_interval(axes, row, difference.mean, difference.interval, colour, window)
        axes.annotate(
            word, (1, row), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            va="center", color=GREY if word in _UNDECIDED else "black", fontsize="small",
            annotation_clip=False,
        )  # fmt: skip
    name = group_labels(comparison.groups)[1][comparison.groups.index(comparison.reference)]
    corrected = f",\ncorrected for {comparison.family_size} comparisons" if comparison.family_size > 1 else ""
    against = "as a multiple of" if comparison.ratios else "minus"
    axes.set_xlabel(
        f"{comparison.metric} {against} that of {name if len(name) < 24 else 'the reference'},\npaired by seed"
        f"{corrected}{_arrow_legend([each.interval for each in shown], window)}",
        fontsize="small",
    )


def _draw_interval(axes: "Axes", row: int, mean: float | None, interval: Interval, colour: str, window: Window) -> None:
    """Draw a mean on its interval; an end outside the window becomes an arrow at the edge of the window."""
    if mean is None:
        return
    if interval is not None:
        low, high = max(interval.low, window[0]), min(interval.high, window[1])
        axes.plot([low, high], [row, row], "-", color=colour, linewidth=1.8)
        for end, true_end, arrow in ((low, interval.low, "<"), (high, interval.high, ">")):
            inside = end == true_end
            axes.plot([end], [row], "|" if inside else arrow, color=colour, markersize=9 if inside else 5)
    axes.plot([mean], [row], "D", color=colour, markersize=4.5)


def _window(points: Sequence[float], *, ratios: bool) -> Window:
    """Return the range to which intervals are cut, because very wide intervals of ratios would hide all differences."""
    if not ratios:
        return -inf, inf
    low, high = log(min(points)), log(max(points))
    margin = log(100) + high - low
    return exp_or_inf(low - margin), exp_or_inf(high + margin)


def _arrow_legend(intervals: Iterable[Interval], window: Window) -> str:
    outside = any(each is not None and (each.low < window[0] or each.high > window[1]) for each in intervals)
    return "\n(arrow: the interval extends further)" if outside else ""


def _colours(comparison: MetricComparison) -> dict[Group, str]:
    styles = loss_styles([group.loss_label for group in comparison.groups])
    return {group: style["color"] for group, style in zip(comparison.groups, styles, strict=True)}


def draw_curves(groups: Sequence[Group], histories: Histories, reach: TimeToReach | None = None) -> "Figure":
    """Draw a panel with the curves of all groups for each metric, and the value of `reach` in the panel of its metric.

    The first eight groups have the colours of their losses, all others are grey. Losses are divided by their first
    value, because values of different losses cannot be compared.
    """
    from matplotlib.lines import Line2D  # noqa: PLC0415

    all_curves = {
        name: [histories.curve(group, name, relative=is_loss(name)) for group in groups] for name in histories.names
    }
    curves = {name: of_groups for name, of_groups in all_curves.items() if any(of_groups)}
    rows = max(1, -(-len(curves) // 2))
    head, labels = group_labels(groups)
    styles = loss_styles([group.loss_label for group in groups[:_MAX_COLOURED]])
    legend_columns = 2 if max(map(len, labels), default=0) > 24 else 4
    legend_rows = -(-min(len(groups), _MAX_COLOURED + 1) // legend_columns)
    figure = new_figure(8, 2.7 * rows + 0.22 * (legend_rows + 1) + 0.35, dpi=200)
    panels = figure.subplots(rows, min(2, max(1, len(curves))), squeeze=False).flatten()
    ends = [curve.epochs[end] for of_groups in curves.values() for curve in of_groups if curve for end in (0, -1)]
    first, last = min(ends, default=0), max(ends, default=1)
    margin = 0.03 * (last - first) or 0.5
    for axes, (name, of_groups) in zip(panels, curves.items(), strict=False):
        _draw_panel(axes, of_groups, styles)
        if reach is not None and reach.metric == name:
            _draw_reach(axes, reach)
        title = name
        if is_loss(name):
            without = (group for group, curve in zip(groups, of_groups, strict=True) if curve is None)
            left_out = sum(histories.curve(group, name) is not None for group in without)
            title += ": the loss of each run, divided by its first value"
            left_out_groups = f"{left_out} group{'s' * (left_out > 1)}"
            title += f"\n(without {left_out_groups} whose losses start at or below 0)" if left_out else ""
        axes.set_title(title, fontsize="small", loc="left")
        axes.set_xlim(first - margin, last + margin)
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    others = len(labels) - _MAX_COLOURED
    legend = [*zip(styles, [shorten(label, 60) for label in labels], strict=False)]
    legend += [({"color": _OTHER_CURVES}, f"{others} others")] if others > 0 else []
    handles = [Line2D([], [], label=label, **style) for style, label in legend]
    several = any(curve.seeds > 1 for of_groups in curves.values() for curve in of_groups if curve)
    band = ": mean over seeds; the band extends from the lowest to the highest seed" if several else ""
    figure.legend(
        handles=handles, loc="outside lower center", ncols=legend_columns, fontsize="small", frameon=False,
        title=f"{head}{band}", title_fontsize="small",
    )  # fmt: skip
    _set_title(figure, curves_finding(groups, reach, _LONGEST_NAME))
    return figure


def _set_title(figure: "Figure", title: str) -> None:
    """Write a title in one line above a figure, as large as its width allows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    text = figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    width = text.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width
    text.set_fontsize(min(10, 10 * 0.97 * figure.bbox.width / width))


def _draw_panel(axes: "Axes", curves_of_groups: Sequence[Curve | None], styles: Sequence[dict[str, Any]]) -> None:
    curves = [(rank, curve) for rank, curve in enumerate(curves_of_groups) if curve]
    for rank, curve in reversed(curves):  # so that the best is drawn on top
        style = styles[rank] if rank < len(styles) else {"color": _OTHER_CURVES}
        marker = "." if len(curve.epochs) <= 30 else None
        axes.plot(curve.epochs, curve.mean, linewidth=1.4, marker=marker, markersize=4, **style)
        if rank < len(styles) and curve.seeds > 1:
            axes.fill_between(curve.epochs, curve.low, curve.high, color=style["color"], alpha=0.18, linewidth=0)
    lowest = min(min(curve.low) for _, curve in curves)
    if lowest > 0 and max(max(curve.high) for _, curve in curves) > 50 * lowest:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    axes.set_xlabel("Epochs", fontsize="small")
    set_integer_ticks(axes)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize="small")


def _draw_reach(axes: "Axes", reach: TimeToReach) -> None:
    """Label the value to reach at the right edge. Draw a line there, unless this would make the curves too flat."""
    scale = log10 if axes.get_yscale() == "log" else float
    low, high = map(scale, axes.get_ylim())
    height = (scale(reach.value) - low) / (high - low) if scale is float or reach.value > 0 else -inf
    near = -1 <= height <= 2
    if near:
        axes.axhline(reach.value, color="black", linewidth=0.9, linestyle=":")
    side = "\n(above)" if height > 0 else "\n(below)"
    y, unit = (reach.value, "data") if near else (float(height > 0), "axes fraction")
    axes.annotate(
        f"to reach:\n{reach.value:g}{'' if near else side}", (1, y), xycoords=("axes fraction", unit), xytext=(3, 0),
        textcoords="offset points", ha="left", va="center", fontsize="x-small", annotation_clip=False,
    )  # fmt: skip
