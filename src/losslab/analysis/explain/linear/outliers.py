"""What outliers among the targets do to the solution of each loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from losslab.analysis.explain.linear.case import Case
from losslab.analysis.explain.linear.problem import Problem, Vector, lowest
from losslab.io.figures import COLOURS, line_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Shift:
    """The solution of one loss with outliers, and what it would be without them."""

    label: str
    names: list[str]
    dirty: Vector
    """Where the loss is lowest on the targets, θ (P,)."""
    clean: Vector
    """Where it is lowest on the truth, θ (P,)."""
    end: Vector
    """Where training ended, θ (P,)."""

    @classmethod
    def of(cls, case: Case) -> "Shift | None":
        """Solve the problem of a run without its outliers too; None where it has no minimum with or without them."""
        if not case.minimum.reached:
            return None
        clean = Problem(case.solution, clean=True)
        found = lowest(clean, [case.minimum.weights, *clean.starts])
        if not found.reached:
            return None
        return cls(case.label, case.problem.names, case.minimum.weights, found.weights, case.end)

    @property
    def size(self) -> float:
        """How far the outliers move the solution."""
        return float(np.linalg.norm(self.dirty - self.clean))


def share(case: Case) -> float:
    """The share of training values that are not the truth."""
    target, truth = case.problem.target, case.problem.truth
    return float((target != truth).double().mean()) if target.shape == truth.shape else 0.0


def finding(cases: Sequence[Case], shifts: Sequence[Shift]) -> str:
    """What the figure says."""
    moved = ", ".join(f"{shift.size:.2g} ({shift.label})" for shift in _by_size(shifts))
    return f"{100 * share(cases[0]):.0f} % of the targets are outliers: they move the solution by {moved}"


def draw(cases: Sequence[Case], shifts: Sequence[Shift]) -> "Figure":
    """The fitted lines where there is one feature, else how far each solution is moved."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    one = len(shifts[0].names) == 2 and cases[0].problem.inputs[0].numel() == 1
    figure = Figure(figsize=(8.4, 5.2 if one else 2 + 0.3 * len(shifts)), dpi=120, layout="constrained")
    axes = figure.subplots()
    if one:
        _lines(axes, cases[0].problem, shifts)
    else:
        _distances(axes, _by_size(shifts))
    axes.grid(alpha=0.3)
    axes.set_title(fill(finding(cases, shifts), 100), fontsize=10)
    return figure


def _by_size(shifts: Sequence[Shift]) -> list[Shift]:
    return sorted(shifts, key=lambda shift: -shift.size)


def _lines(axes: "Axes", problem: Problem, shifts: Sequence[Shift]) -> None:
    x, target, truth = (values.flatten().numpy() for values in (problem.inputs, problem.target, problem.truth))
    thrown = target != truth
    ends = np.array([x.min(), x.max()])
    heights = [weights[0] * ends + weights[1] for shift in shifts for weights in (shift.dirty, shift.clean)]
    low, high = _picture(np.concatenate([truth, *heights]))
    beyond = thrown & ((target < low) | (target > high))
    said = f"outliers ({thrown.sum()}, of which {beyond.sum()} lie beyond the picture)"
    axes.plot(x[~thrown], target[~thrown], ".", color="#999999", markersize=5, label="targets")
    axes.plot(x[thrown & ~beyond], target[thrown & ~beyond], "x", color="black", markersize=6, label=said)
    axes.plot(x[beyond & (target > high)], np.full((beyond & (target > high)).sum(), high), "^", color="black")
    axes.plot(x[beyond & (target < low)], np.full((beyond & (target < low)).sum(), low), "v", color="black")
    for shift, look in zip(shifts, line_styles(), strict=False):
        slope, height = shift.dirty
        label = f"{shift.label}: {slope:.2f} x {height:+.2f}, without {shift.clean[0]:.2f} x {shift.clean[1]:+.2f}"
        axes.plot(ends, slope * ends + height, linewidth=2.2, label=label, **look)
        axes.plot(ends, shift.clean[0] * ends + shift.clean[1], linewidth=1, alpha=0.5, **look)
    space = 0.04 * (high - low)
    axes.set(xlabel="x", ylabel="y", ylim=(low - space, high + space))
    axes.legend(fontsize=8, title="bold with outliers, thin without", title_fontsize=8)


def _picture(values: Vector) -> tuple[float, float]:
    """Twice the room that values take: outliers may be so far that nothing else would be seen beside all of them."""
    low, high = float(values.min()), float(values.max())
    room = (high - low) / 2 or 1.0
    return low - room, high + room


def _distances(axes: "Axes", shifts: Sequence[Shift]) -> None:
    """A row for each loss, by ratios where they span more than tenfold: the squared error's shift may be hundreds."""
    lengths = []
    for row, shift in enumerate(shifts):
        end = float(np.linalg.norm(shift.end - shift.clean))
        lengths += [shift.size, end]
        axes.plot([shift.size, end], [row, row], color=COLOURS[0], linewidth=1.6)
        axes.plot(shift.size, row, "o", color=COLOURS[0], markersize=8)
        axes.plot(end, row, "|", color="black", markersize=13, markeredgewidth=1.6)
    axes.plot([], [], "o", color=COLOURS[0], label="the minimum of the loss on the targets")
    axes.plot([], [], "|", color="black", markersize=11, linestyle="none", label="where training ended")
    if max(lengths) > 10 * min(lengths) > 0:
        axes.set_xscale("log")
    else:
        axes.set_xlim(0, 1.15 * max(lengths) or 1.0)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(shifts)), [shift.label for shift in shifts])
    axes.set_ylim(len(shifts) - 0.5, -0.5)
    axes.set_xlabel("distance from the minimum of the same loss without outliers (all weights together)")
    axes.legend(fontsize=8)
