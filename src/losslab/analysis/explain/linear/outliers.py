"""The figure outliers.png: how far outliers among the targets move the minimum of each loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Self

import numpy as np

from losslab.analysis.explain.linear.problem import Problem, Vector, find_minimum
from losslab.analysis.explain.linear.run import LinearRun
from losslab.io.figures import COLOURS, line_styles, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Shift:
    """The minimum of one loss with and without the outliers."""

    label: str
    names: list[str]
    dirty: Vector
    """Minimum of the loss on the targets, θ (P,)."""
    clean: Vector
    """Minimum of the loss on the truth, θ (P,)."""
    end: Vector
    """End of training, θ (P,)."""

    @classmethod
    def of(cls, run: LinearRun) -> Self | None:
        """Find the minimum without outliers too; None if one of the two does not exist."""
        if not run.minimum.reached:
            return None
        clean = Problem(run.solution, clean=True)
        minimum = find_minimum(clean, [run.minimum.weights, *clean.starts])
        if not minimum.reached:
            return None
        return cls(run.label, run.problem.names, run.minimum.weights, minimum.weights, run.end)

    @property
    def size(self) -> float:
        """How far the outliers move the minimum."""
        return float(np.linalg.norm(self.dirty - self.clean))


def outlier_share(run: LinearRun) -> float:
    """The share of training targets that differ from the truth."""
    target, truth = run.problem.target, run.problem.truth
    return float((target != truth).double().mean()) if target.shape == truth.shape else 0.0


def finding(runs: Sequence[LinearRun], shifts: Sequence[Shift]) -> str:
    """How far outliers move each minimum, in a sentence."""
    largest_first = sorted(shifts, key=lambda shift: -shift.size)
    moved = ", ".join(f"{shift.size:.2g} ({shift.label})" for shift in largest_first)
    return f"{100 * outlier_share(runs[0]):.0f} % of the targets are outliers: they move the minimum by {moved}"


def draw(runs: Sequence[LinearRun], shifts: Sequence[Shift]) -> "Figure":
    """Draw the fitted lines of a model with one feature, else the distance that each minimum is moved."""
    one_feature = len(shifts[0].names) == 2 and runs[0].problem.inputs[0].numel() == 1
    figure = new_figure(8.4, 5.2 if one_feature else 2 + 0.3 * len(shifts), dpi=120)
    axes = figure.subplots()
    if one_feature:
        _draw_fits(axes, runs[0].problem, shifts)
    else:
        _draw_distances(axes, sorted(shifts, key=lambda shift: -shift.size))
    axes.grid(alpha=0.3)
    axes.set_title(fill(finding(runs, shifts), 100), fontsize=10)
    return figure


def _draw_fits(axes: "Axes", problem: Problem, shifts: Sequence[Shift]) -> None:
    x, target, truth = (values.flatten().numpy() for values in (problem.inputs, problem.target, problem.truth))
    outlier = target != truth
    ends = np.array([x.min(), x.max()])
    heights = [weights[0] * ends + weights[1] for shift in shifts for weights in (shift.dirty, shift.clean)]
    values = np.concatenate([truth, *heights])
    # Twice the range of the truth and the fits: with all outliers in view, nothing else would be visible.
    low, high = float(values.min()), float(values.max())
    room = (high - low) / 2 or 1.0
    low, high = low - room, high + room
    above, below = outlier & (target > high), outlier & (target < low)
    inside = outlier & ~above & ~below
    label = f"outliers ({outlier.sum()}, of which {(above | below).sum()} are beyond the axes)"
    axes.plot(x[~outlier], target[~outlier], ".", color="#999999", markersize=5, label="targets")
    axes.plot(x[inside], target[inside], "x", color="black", markersize=6, label=label)
    axes.plot(x[above], np.full(above.sum(), high), "^", color="black")
    axes.plot(x[below], np.full(below.sum(), low), "v", color="black")
    for shift, style in zip(shifts, line_styles(), strict=False):
        (slope, intercept), (clean_slope, clean_intercept) = shift.dirty, shift.clean
        fit = f"{slope:.2f} x {intercept:+.2f}, without {clean_slope:.2f} x {clean_intercept:+.2f}"
        axes.plot(ends, slope * ends + intercept, linewidth=2.2, label=f"{shift.label}: {fit}", **style)
        axes.plot(ends, clean_slope * ends + clean_intercept, linewidth=1, alpha=0.5, **style)
    margin = 0.04 * (high - low)
    axes.set(xlabel="x", ylabel="y", ylim=(low - margin, high + margin))
    axes.legend(fontsize=8, title="bold with outliers, thin without", title_fontsize=8)


def _draw_distances(axes: "Axes", shifts: Sequence[Shift]) -> None:
    """Draw a row for each loss, on a logarithmic axis if the distances span more than a decade."""
    lengths = []
    for row, shift in enumerate(shifts):
        end = float(np.linalg.norm(shift.end - shift.clean))
        lengths += [shift.size, end]
        axes.plot([shift.size, end], [row, row], color=COLOURS[0], linewidth=1.6)
        axes.plot(shift.size, row, "o", color=COLOURS[0], markersize=8)
        axes.plot(end, row, "|", color="black", markersize=13, markeredgewidth=1.6)
    axes.plot([], [], "o", color=COLOURS[0], label="the minimum of the loss on the targets")
    axes.plot([], [], "|", color="black", markersize=11, linestyle="none", label="the end of training")
    if max(lengths) > 10 * min(lengths) > 0:
        axes.set_xscale("log")
    else:
        axes.set_xlim(0, 1.15 * max(lengths) or 1.0)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(shifts)), [shift.label for shift in shifts])
    axes.set_ylim(len(shifts) - 0.5, -0.5)
    axes.set_xlabel("distance from the minimum of the same loss without outliers (all weights together)")
    axes.legend(fontsize=8)
