"""What outliers among the targets do to the solution of each loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from losslab.explanation.figure import COLOURS, STYLES
from losslab.explanation.linear.case import Case
from losslab.explanation.linear.minimum import lowest
from losslab.explanation.linear.problem import Problem, Vector

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
    def of(cls, case: Case) -> "Shift":
        """Solve the problem of a run without its outliers too."""
        clean = Problem(case.solution, clean=True)
        found = lowest(clean, [case.minimum.weights, *clean.starts])
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
    moved = ", ".join(f"{shift.size:.2g} ({shift.label})" for shift in sorted(shifts, key=lambda shift: -shift.size))
    return f"{100 * share(cases[0]):.0f} % of the targets are outliers: they move the solution by {moved}"


def draw(cases: Sequence[Case], shifts: Sequence[Shift]) -> "Figure":
    """The fitted lines where there is one feature, else how far each weight is moved."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    one = len(shifts[0].names) == 2 and cases[0].problem.inputs[0].numel() == 1
    figure = Figure(figsize=(8.4, 5.2 if one else 1.8 + 0.42 * len(shifts[0].names)), dpi=120, layout="constrained")
    axes = figure.subplots()
    (_lines if one else _weights)(axes, cases, shifts)
    axes.grid(alpha=0.3)
    title = finding(cases, shifts)
    axes.set_title(title if len(title) < 90 else title.replace(": ", ":\n", 1), fontsize=10)
    return figure


def _lines(axes: "Axes", cases: Sequence[Case], shifts: Sequence[Shift]) -> None:
    problem = cases[0].problem
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
    for shift, colour, style in zip(shifts, cycle(COLOURS), cycle(STYLES)):
        slope, height = shift.dirty
        label = f"{shift.label}: {slope:.2f} x {height:+.2f}, without {shift.clean[0]:.2f} x {shift.clean[1]:+.2f}"
        axes.plot(ends, slope * ends + height, color=colour, linestyle=style, linewidth=2.2, label=label)
        axes.plot(ends, shift.clean[0] * ends + shift.clean[1], color=colour, linestyle=style, linewidth=1, alpha=0.5)
    space = 0.04 * (high - low)
    axes.set(xlabel="x", ylabel="y", ylim=(low - space, high + space))
    axes.legend(fontsize=8, title="bold with outliers, thin without", title_fontsize=8)


def _picture(values: Vector) -> tuple[float, float]:
    """Twice the room that values take: outliers may be so far that nothing else would be seen beside all of them."""
    low, high = float(values.min()), float(values.max())
    room = (high - low) / 2 or 1.0
    return low - room, high + room


def _weights(axes: "Axes", cases: Sequence[Case], shifts: Sequence[Shift]) -> None:  # noqa: ARG001 -- as _lines
    names = shifts[0].names
    rows = np.arange(len(names))
    offsets = np.linspace(-0.3, 0.3, len(shifts)) if len(shifts) > 1 else np.zeros(1)
    markers = "osD^vPX"
    for shift, colour, marker, offset in zip(shifts, cycle(COLOURS), cycle(markers), offsets, strict=False):
        moved = shift.dirty - shift.clean
        axes.hlines(rows + offset, 0, moved, color=colour, linewidth=1.6)
        axes.plot(
            moved, rows + offset, marker, color=colour, markersize=6, label=f"{shift.label}: {shift.size:.2g} in all"
        )
        axes.plot(shift.end - shift.clean, rows + offset, "|", color="black", markersize=9, zorder=3)
    axes.plot([], [], "|", color="black", markersize=9, label="where training ended")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(rows, names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="how far the outliers move the weight, from the solution without them", ylabel="weight")
    axes.legend(fontsize=8)
