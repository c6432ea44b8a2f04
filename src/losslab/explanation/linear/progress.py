"""How far from its goal a linear run was at each step."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from losslab.explanation.linear.case import Case
from losslab.explanation.linear.problem import Vector
from losslab.explanation.path import Path
from losslab.palette import COLOURS, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def directions(axes: "Axes", case: Case) -> None:
    """The distance from the minimum along the steepest and the flattest direction, and what the Hessian predicts."""
    axes.set(xlabel="steps", ylabel="distance from the minimum, along that direction")
    axes.grid(alpha=0.3)
    if case.path is None:
        axes.set_title("no path was recorded (callbacks.path)", fontsize=10)
        return
    if not case.minimum.reached:
        _length(axes, case.path)
        return
    steps = case.path.steps
    lines: dict[str, tuple[Vector, float | None]]
    if not case.curved:
        lines = {"in all": (np.linalg.norm(case.path.weights - case.minimum.weights, axis=1), None)}
        axes.set_ylabel("distance from the minimum")
        axes.set_title("the Hessian is 0 where it exists:\nthis loss is made of straight pieces", fontsize=10)
    else:
        lines = {
            f"{name} (λ {value:.4g})": (np.abs((case.path.weights - case.minimum.weights) @ vector), float(value))
            for name, value, vector in ends(case)
        }
        left = {name: remaining(case, vector) for name, _, vector in ends(case)}
        axes.set_title(
            f"{share(left['flattest'])} of the way in the flattest direction is left,\n"
            f"{share(left['steepest'])} in the steepest; largest stable rate {case.largest_rate:.4g}",
            fontsize=10,
        )
    for (name, (distance, value)), colour in zip(lines.items(), COLOURS, strict=False):
        axes.plot(steps[1:], distance[1:], color=colour, linewidth=1.8, label=name)
        if value is not None and case.plain_rate is not None:
            predicted = distance[0] * np.abs(1 - case.plain_rate * value) ** steps
            label = f"{distance[0]:.2g} · |1 − {case.plain_rate:g} · {value:.4g}|ᵏ"
            axes.plot(steps[1:], predicted[1:], ":", color="black", linewidth=1.4, label=label)
    _logarithmic(axes, [distance for distance, _ in lines.values()])


def _length(axes: "Axes", path: Path) -> None:
    """How long the weights have grown: all there is to see where the loss only falls with their length."""
    axes.plot(path.steps, np.linalg.norm(path.weights, axis=1), color=COLOURS[0], linewidth=1.8)
    axes.set_ylabel("length of the weights")
    axes.set_title(
        "no minimum within reach, so no Hessian and no rate of it;\nhow long the weights have grown", fontsize=10
    )


def ends(case: Case) -> list[tuple[str, float, Vector]]:
    """The steepest and the flattest direction: name, eigenvalue, eigenvector (P,)."""
    values, vectors = case.curvature
    return [("steepest", values[0], vectors[:, 0]), ("flattest", values[-1], vectors[:, -1])]


def remaining(case: Case, vector: Vector) -> float:
    """The share of the distance along a direction (P,) that is left at the end of the path."""
    assert case.path is not None  # noqa: S101 -- for the type checker
    first, last = (abs(float((place - case.minimum.weights) @ vector)) for place in case.path.weights[[0, -1]])
    return last / first if first > 0 else 0.0


def share(value: float) -> str:
    """A share in per cent, such as "9.0 %"."""
    return "none" if value < 5e-4 else f"{100 * value:.1f} %"


def distances(axes: "Axes", cases: Sequence[Case]) -> None:
    """The distance of each run from the true law, or where there is none from its own minimum."""
    goal = "the true law" if all(case.problem.law is not None for case in cases) else "its own minimum"
    lines = {}
    for case, look in zip(cases, looks(), strict=False):
        if case.path is not None and (case.minimum.reached or goal == "the true law"):
            law = case.problem.law
            target = case.minimum.weights if goal == "its own minimum" or law is None else law
            lines[case.label] = np.linalg.norm(case.path.weights - target, axis=1)
            line = lines[case.label][1:]
            axes.plot(case.path.steps[1:], line, linewidth=1.8, label=case.label, **look)
    axes.set(xlabel="steps", ylabel=f"distance from {goal}")
    axes.grid(alpha=0.3)
    if lines:
        last = sorted((float(line[-1]), label) for label, line in lines.items())
        (near, nearest), (far, farthest) = last[0], last[-1]
        title = f"{nearest} ends nearest to {goal} ({near:.2g})" + (
            f", {farthest} farthest ({far:.2g})" if len(last) > 1 else ""
        )
        axes.set_title(title, fontsize=10)
        _logarithmic(axes, list(lines.values()))
    else:
        recorded = any(case.path is not None for case in cases)
        why = "no run has a minimum within reach" if recorded else "no paths were recorded (callbacks.path)"
        axes.set_title(why, fontsize=10)


def _logarithmic(axes: "Axes", lines: Sequence[Vector]) -> None:
    """Both axes by ratios, down to a ten-thousandth of the largest distance: what is below is rounding."""
    axes.set(xscale="log", yscale="log")
    top = max(float(line.max()) for line in lines) or 1.0
    low = min(float(line[1:].min()) for line in lines if len(line) > 1)
    axes.set_ylim(max(low, 1e-4 * top) / 1.5, 2 * top)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=8)
