"""The panels of surface.png over steps: how far linear runs were from the minimum or from the true weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from losslab.analysis.explain.linear.problem import Vector
from losslab.analysis.explain.linear.run import LinearRun, Trajectory
from losslab.io.figures import COLOURS, line_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOT_RECORDED = "no path was recorded (callbacks.path)"


def draw_directions(axes: "Axes", run: LinearRun) -> None:
    """Draw one run's distance from the minimum along the extreme eigenvectors, and what the Hessian predicts."""
    axes.set(xlabel="steps", ylabel="distance from the minimum along that direction")
    axes.grid(alpha=0.3)
    if run.trajectory is None:
        axes.set_title(_NOT_RECORDED, fontsize=10)
        return
    if not run.minimum.reached:
        _draw_norm(axes, run.trajectory)
        return
    steps, offset = run.trajectory.steps, run.trajectory.weights - run.minimum.weights
    lines: dict[str, tuple[Vector, float | None]]
    if not run.is_curved:
        lines = {"all weights together": (np.linalg.norm(offset, axis=1), None)}
        axes.set_ylabel("distance from the minimum")
        axes.set_title("the Hessian is 0 where it exists:\nthis loss is piecewise linear", fontsize=10)
    else:
        values, vectors = run.curvature
        lines = {
            f"{name} (λ {values[column]:.4g})": (np.abs(offset @ vectors[:, column]), float(values[column]))
            for name, column in (("steepest", 0), ("flattest", -1))
        }
        steepest, flattest = (_share_left(distance) for distance, _ in lines.values())
        axes.set_title(
            f"{flattest} of the distance is left along the flattest direction,\n"
            f"{steepest} along the steepest; largest stable lr {run.max_stable_lr:.4g}",
            fontsize=10,
        )
    for (name, (distance, value)), colour in zip(lines.items(), COLOURS, strict=False):
        axes.plot(steps[1:], distance[1:], color=colour, linewidth=1.8, label=name)
        if value is not None and run.constant_lr is not None:
            predicted = distance[0] * np.abs(1 - run.constant_lr * value) ** steps
            label = f"{distance[0]:.2g} · |1 − {run.constant_lr:g} · {value:.4g}|ᵏ"
            axes.plot(steps[1:], predicted[1:], ":", color="black", linewidth=1.4, label=label)
    _set_log_scales(axes, [distance for distance, _ in lines.values()])


def _draw_norm(axes: "Axes", trajectory: Trajectory) -> None:
    """Draw the norm of the weights, for a loss that only falls as they grow."""
    axes.plot(trajectory.steps, np.linalg.norm(trajectory.weights, axis=1), color=COLOURS[0], linewidth=1.8)
    axes.set_ylabel("norm of the weights")
    axes.set_title("no minimum within reach, hence no Hessian at it;\nthe norm of the weights instead", fontsize=10)


def _share_left(distance: Vector) -> str:
    """The share of the initial distance (K,) that is left at the end, in words."""
    share = float(distance[-1] / distance[0]) if distance[0] > 0 else 0.0
    return "none" if share < 5e-4 else f"{100 * share:.1f} %"


def draw_distances(axes: "Axes", runs: Sequence[LinearRun]) -> None:
    """Draw the distance of each run from the true weights, or from its own minimum if a run has no true weights."""
    to_truth = all(run.problem.true_weights is not None for run in runs)
    goal = "the true weights" if to_truth else "its own minimum"
    lines = {}
    for run, style in zip(runs, line_styles(), strict=False):
        if run.trajectory is not None and (run.minimum.reached or to_truth):
            truth = run.problem.true_weights
            target = truth if to_truth and truth is not None else run.minimum.weights
            lines[run.label] = np.linalg.norm(run.trajectory.weights - target, axis=1)
            axes.plot(run.trajectory.steps[1:], lines[run.label][1:], linewidth=1.8, label=run.label, **style)
    axes.set(xlabel="steps", ylabel=f"distance from {goal}")
    axes.grid(alpha=0.3)
    if not lines:
        recorded = any(run.trajectory is not None for run in runs)
        axes.set_title("no run has a minimum within reach" if recorded else _NOT_RECORDED, fontsize=10)
        return
    final = sorted((float(line[-1]), label) for label, line in lines.items())
    (near, nearest), (far, farthest) = final[0], final[-1]
    others = f", {farthest} farthest ({far:.2g})" if len(final) > 1 else ""
    axes.set_title(f"{nearest} ends nearest to {goal} ({near:.2g}){others}", fontsize=10)
    _set_log_scales(axes, list(lines.values()))


def _set_log_scales(axes: "Axes", lines: Sequence[Vector]) -> None:
    """Make both axes logarithmic, down to 1e-4 of the largest distance; below lies rounding."""
    axes.set(xscale="log", yscale="log")
    top = max(float(line.max()) for line in lines) or 1.0
    low = min(float(line[1:].min()) for line in lines if len(line) > 1)
    axes.set_ylim(max(low, 1e-4 * top) / 1.5, 2 * top)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=8)
