"""Figures of the plane around solutions, and of the lines in it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from losslab.analysis.explain.figures import contours, even, written
from losslab.analysis.explain.landscape.plane import Array, Landscape
from losslab.io.figures import COLOURS
from losslab.targets import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HALF = 0.5
"""The distance at which landscapes are compared in words."""
_TICKS = (-1, -HALF, 0, HALF, 1)


def metric_name(landscape: Landscape) -> str:
    """What the metric is called."""
    return "mean squared error" if is_regression(landscape) else "error rate"


def is_regression(landscape: Landscape) -> bool:
    """Whether the metric is a squared error, and not a share of wrong decisions."""
    return landscape.solution.learner.facts.task is Task.REGRESSION


def metric(landscape: Landscape, value: float) -> str:
    """A value of the metric, such as "2.1 %"."""
    return f"{value:.3g}" if is_regression(landscape) else f"{100 * value:.1f} %"


def finding(landscape: Landscape) -> str:
    """How fast loss and metric rise around a solution."""
    here, there = landscape.centre, landscape.around(HALF)
    gone = f"{metric(landscape, here.metric)} to {metric(landscape, there.metric)}"
    return (
        f"{landscape.label}: half a filter's length away the {metric_name(landscape)} goes from {gone}, "
        f"the loss from {here.loss:.3g} to {there.loss:.3g}"
    )


def draw(landscapes: Sequence[Landscape], note: str) -> "Figure":
    """A row for each solution: its loss on the plane, the metric on the plane, and its loss along both lines.

    The metric has one scale of colours for all; a loss has its own, since it means something else under every loss.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(14.2, 0.6 + 4.3 * len(landscapes)), dpi=110, layout="constrained")
    grid = figure.subplots(len(landscapes), 3, squeeze=False)
    metrics = np.concatenate([landscape.plane[..., 1].ravel() for landscape in landscapes])
    finite = metrics[np.isfinite(metrics)]
    ends = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    for (loss, common, lines), landscape in zip(grid, landscapes, strict=True):
        here, there = landscape.centre, landscape.around(HALF)
        values = landscape.plane[..., 0]
        _plane(loss, landscape, values, f"{landscape.solution.loss} loss", None)
        loss.set_title(f"{landscape.label}: loss {here.loss:.3g}, {there.loss:.3g} at distance {HALF:g}", fontsize=10)
        scale = 1 if is_regression(landscape) else 100
        name = metric_name(landscape) + ("" if scale == 1 else " (%)")
        _plane(common, landscape, scale * landscape.plane[..., 1], name, (scale * ends[0], scale * ends[1]))
        rises = f"{metric(landscape, here.metric)}, {metric(landscape, there.metric)} at distance {HALF:g}"
        common.set_title(f"{landscape.label}: {metric_name(landscape)} {rises}", fontsize=10)
        _lines(lines, landscape, (scale * ends[0], scale * ends[1]))
    figure.supxlabel(note, fontsize=8)
    return figure


def _plane(axes: "Axes", landscape: Landscape, values: Array, unit: str, ends: tuple[float, float] | None) -> None:
    from matplotlib.colors import LogNorm, Normalize  # noqa: PLC0415

    seen = np.ma.masked_invalid(values)
    low, high = ends or ((float(seen.min()), float(seen.max())) if seen.count() else (0.0, 1.0))
    levels, logarithmic = contours(low, high) if ends is None else (even(low, high), False)
    norm = (LogNorm if logarithmic else Normalize)(levels[0], levels[-1])
    fine = (np.geomspace if logarithmic else np.linspace)(levels[0], levels[-1], 60)
    cmap = "viridis" if ends is None else "cividis"
    shades = axes.contourf(landscape.side, landscape.side, seen, fine, norm=norm, cmap=cmap, extend="both")
    lines = axes.contour(landscape.side, landscape.side, seen, levels[1:], colors="white", linewidths=0.6, alpha=0.8)
    axes.clabel(lines, levels[2::2], fontsize=7, fmt=written(levels))
    axes.plot(0, 0, "*", color="#F0E442", markeredgecolor="black", markersize=13)
    axes.set(xlabel="1st random direction (filter lengths)", ylabel="2nd random direction (filter lengths)")
    axes.set(xticks=_TICKS, yticks=_TICKS)
    axes.set_aspect("equal")
    bar = axes.figure.colorbar(
        shades, cax=axes.inset_axes((1.03, 0, 0.045, 1)), ticks=levels[::2], format=written(levels)
    )
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=8)
    bar.set_label(unit, fontsize=8)


def _lines(axes: "Axes", landscape: Landscape, ends: tuple[float, float]) -> None:
    """The loss on the left axis, the metric on the right one."""
    scale = 1 if is_regression(landscape) else 100
    beside = axes.twinx()
    for number, (style, word) in enumerate((("-", "1st"), ("--", "2nd"))):
        loss, measure = landscape.lines[number].T
        axes.plot(landscape.reach, loss, style, color=COLOURS[0], linewidth=1.8, label=f"{word} direction")
        beside.plot(landscape.reach, scale * measure, style, color=COLOURS[1], linewidth=1.4)
    beside.set_ylim(ends[0] - 0.03 * (ends[1] - ends[0]), ends[1] + 0.03 * (ends[1] - ends[0]) or 1.0)
    losses = landscape.lines[..., 0]
    if losses.min() > 0 and losses.max() > 100 * losses.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    axes.set(xlabel="distance from the solution (filter lengths)", xticks=_TICKS)
    axes.set_box_aspect(1)  # as tall as the planes beside it
    beside.set_box_aspect(1)
    axes.set_ylabel(f"{landscape.solution.loss} loss", color=COLOURS[0])
    beside.set_ylabel(metric_name(landscape) + ("" if scale == 1 else " (%)"), color=COLOURS[1])
    axes.legend(fontsize=8, loc="upper center")
    axes.grid(alpha=0.3)
    axes.set_title("Along the two directions", fontsize=10)
