"""The figure surface.png: the loss surface of linear runs with their trajectories, and their distances over steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from losslab.analysis.explain.figures import contour_levels, draw_contours
from losslab.analysis.explain.linear.problem import Vector
from losslab.analysis.explain.linear.run import LinearRun
from losslab.io.figures import COLOURS, line_styles, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patheffects import Normal, Stroke

_GRID = 121
_NOT_RECORDED = "no path was recorded (callbacks.path)"
_PATH_COLOUR, _MINIMUM_COLOUR, _TRUTH_COLOUR = "#E69F00", "#F0E442", "#D55E00"


@dataclass(frozen=True)
class Plane:
    """A plane in weight space: θ = origin + x · axes[0] + y · axes[1]."""

    origin: Vector
    """(P,)."""
    axes: Vector
    """Two orthonormal directions (2, P)."""
    labels: tuple[str, str]
    """Of the x axis and the y axis."""

    def project(self, weights: Vector) -> Vector:
        """Coordinates of the projections of weights (..., P) onto the plane → (..., 2)."""
        coordinates: Vector = (weights - self.origin) @ self.axes.T
        return coordinates

    def weights(self, coordinates: Vector) -> Vector:
        """The weights at coordinates (..., 2) → θ (..., P)."""
        weights: Vector = self.origin + coordinates @ self.axes
        return weights


def plane_through(origin: Vector, paths: Sequence[Vector], hessian: Vector) -> Plane:
    """The plane through an origin (P,) that shows most of the paths (K, P) of the weights.

    Two weights: their own plane. More: the plane of the paths' principal directions (Li et al. 2018), or without paths
    that of the Hessian's steepest and flattest eigenvector.
    """
    if len(origin) == 2:
        return Plane(np.zeros(2), np.eye(2), ("weight w", "bias b"))
    if not paths:
        _, vectors = np.linalg.eigh(hessian)
        labels = ("along the steepest eigenvector", "along the flattest eigenvector")
        return Plane(origin, vectors[:, [-1, 0]].T, labels)
    # Weighted by length: most epochs are spent near the end.
    lengths = np.concatenate([np.linalg.norm(np.diff(path, axis=0), axis=1) for path in paths])
    points = (np.concatenate([path[1:] for path in paths]) - origin) * np.sqrt(lengths)[:, None]
    squares, vectors = np.linalg.eigh(points.T @ points)  # ascending
    shares = [f"{square / max(squares.sum(), np.finfo(float).tiny):.0%}" for square in squares[:-3:-1]]
    first, second = (
        f"{n} principal direction of the paths ({share})" for n, share in zip(("1st", "2nd"), shares, strict=True)
    )
    return Plane(origin, vectors[:, :-3:-1].T, (first, second))


def draw(runs: Sequence[LinearRun], plane: Plane) -> "Figure":
    """Draw each run's surface and trajectory over the same weights, and a panel over steps."""
    frame = _frame(runs, plane)
    width, height = frame[1] - frame[0]
    panel_height = 1.2 + 3.6 * float(height / width)
    columns = 2 if len(runs) == 4 else min(len(runs), 3)
    rows = -(-len(runs) // columns)
    if len(runs) == 1:
        figure = new_figure(10.6, max(panel_height, 4.4), dpi=120)
        surfaces, below = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.2, 1)).ravel()
        _draw_directions(below.subplots(), runs[0])
    else:
        figure = new_figure(5 * columns, rows * panel_height + 3.8, dpi=120)
        heights = (rows * panel_height + 0.4, 3.4)
        surfaces, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights).ravel()
        surfaces.suptitle("The same weights in every panel, each with the units of its own loss", fontsize=10)
        _draw_distances(below.subplots(), runs)
    grid = surfaces.subplots(rows, columns, squeeze=False).ravel()
    for axes, run in zip(grid, runs, strict=False):
        _draw_surface(axes, run, plane, frame)
    grid[0].legend(fontsize=7, loc="best", framealpha=0.85)
    for axes in grid[len(runs) :]:
        axes.set_visible(False)
    return figure


def findings(runs: Sequence[LinearRun]) -> list[str]:
    """Where each run ended, a sentence each."""
    sentences = [_title(run).replace("\n", " ") for run in runs]
    if len(runs) == 1 and runs[0].is_curved:
        values = runs[0].curvature[0]
        eigenvalues = f"Hessian eigenvalues {values[0]:.6g} to {values[-1]:.4g}"
        sentences[0] += f"; {eigenvalues}, largest stable learning rate {runs[0].max_stable_lr:.4g}"
    return sentences


def _frame(runs: Sequence[LinearRun], plane: Plane) -> tuple[Vector, Vector]:
    """The lower left and the upper right corner around all that is drawn, with a margin."""
    paths = [run.trajectory.weights for run in runs if run.trajectory is not None]
    truths = [run.problem.true_weights for run in runs if run.problem.true_weights is not None]
    weights = [np.stack([run.centre for run in runs]), np.stack([run.end for run in runs]), *paths, *truths]
    points = np.concatenate([plane.project(each).reshape(-1, 2) for each in weights])
    low, high = points.min(0), points.max(0)
    # Neither side is much shorter than the other: a valley drawn as a line would show nothing.
    half = np.maximum((high - low) / 2, 0.6 * (high - low).max() / 2)
    half = 1.15 * np.where(half > 0, half, 1.0)
    return (low + high) / 2 - half, (low + high) / 2 + half


def _draw_surface(axes: "Axes", run: LinearRun, plane: Plane, frame: tuple[Vector, Vector]) -> None:
    xs, ys = (np.linspace(*ends, _GRID) for ends in zip(*frame, strict=True))
    with np.errstate(all="ignore"):
        grid = plane.weights(np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2))
        loss = np.ma.masked_invalid(run.problem.losses(grid).reshape(_GRID, _GRID))
    scale = contour_levels(float(loss.min()), float(loss.max()))
    draw_contours(axes, xs, ys, loss, scale, f"{run.solution.loss} loss, mean of the examples", "viridis")
    if len(plane.origin) == 2 and run.is_curved:
        _draw_eigenvectors(axes, run, frame)
    _draw_path(axes, run, plane)
    axes.set(xlim=(xs[0], xs[-1]), ylim=(ys[0], ys[-1]), xlabel=plane.labels[0], ylabel=plane.labels[1])
    axes.set_aspect("equal")
    axes.set_title(_title(run), fontsize=10)


def _draw_eigenvectors(axes: "Axes", run: LinearRun, frame: tuple[Vector, Vector]) -> None:
    """Draw the Hessian's eigenvectors at the minimum as the half-axes of an ellipse of equal loss."""
    values, vectors = run.curvature
    middle, half = (frame[0] + frame[1]) / 2, (frame[1] - frame[0]) / 2
    size = 2 * float(half.min())
    flattest = values[-1] if values[-1] > 0 else values[0]
    for value, vector in zip(values, vectors.T, strict=True):
        reach = 0.2 * size * np.sqrt(flattest / value) * vector if value > 0 else 0.2 * size * vector
        tips = [run.minimum.weights - reach, run.minimum.weights + reach]
        axes.plot(*np.stack(tips).T, color="white", linewidth=1.5, zorder=3)
        # The tip that is farther from the edge of the axes.
        tip = min(tips, key=lambda end: float(np.abs((end - middle) / half).max()))
        offset, align = ((-6, 4), "right") if tip[0] > middle[0] else ((6, 4), "left")
        axes.annotate(
            f"λ {value:.4g}", tip, offset, textcoords="offset points", ha=align, fontsize=8, color="white",
            path_effects=_outline(2), zorder=8,
        )  # fmt: skip


def _draw_path(axes: "Axes", run: LinearRun, plane: Plane) -> None:
    """Draw the trajectory, its end, the minimum, and the true weights."""
    if run.trajectory is not None:
        epochs = run.trajectory.epochs
        x, y = plane.project(run.trajectory.weights).T
        axes.plot(
            x, y, color=_PATH_COLOUR, linewidth=1.8, path_effects=_outline(3.5), zorder=4, label="path, by epochs"
        )
        for epoch in (0, *(10**power for power in range(1, 9))):
            if epoch < epochs[-1]:
                row = int(np.searchsorted(epochs, epoch))
                axes.plot(x[row], y[row], "o", color=_PATH_COLOUR, markeredgecolor="black", markersize=5, zorder=5)
                axes.annotate(
                    str(epoch or "start"), (x[row], y[row]), (6, 5), textcoords="offset points", fontsize=8,
                    color="white", path_effects=_outline(2), zorder=8,
                )  # fmt: skip
    points = [(run.end, "end", "o", "white", 9.0)]
    if run.minimum.reached:
        points.append((run.minimum.weights, "minimum of this loss", "*", _MINIMUM_COLOUR, 13))
    if run.problem.true_weights is not None:
        points.append((run.problem.true_weights, "true weights (fit to the truth)", "X", _TRUTH_COLOUR, 6.5))
    for zorder, (weights, label, marker, colour, size) in enumerate(points, 6):
        style: dict[str, Any] = {"color": colour, "markersize": size, "markeredgecolor": "black", "zorder": zorder}
        axes.plot(*plane.project(weights), marker, label=label, **style)


def _outline(width: float) -> list["Stroke | Normal"]:
    """A black outline, visible on all colours."""
    from matplotlib.patheffects import Normal, Stroke  # noqa: PLC0415

    return [Stroke(linewidth=width, foreground="black"), Normal()]


def _draw_directions(axes: "Axes", run: LinearRun) -> None:
    """Draw one run's distance from the minimum along the extreme eigenvectors, and what the Hessian predicts."""
    axes.set(xlabel="steps", ylabel="distance from the minimum along that direction")
    axes.grid(alpha=0.3)
    if run.trajectory is None:
        axes.set_title(_NOT_RECORDED, fontsize=10)
        return
    steps, weights = run.trajectory.steps, run.trajectory.weights
    if not run.minimum.reached:  # the loss falls for ever as the weights grow
        axes.plot(steps, np.linalg.norm(weights, axis=1), color=COLOURS[0], linewidth=1.8)
        axes.set_ylabel("norm of the weights")
        axes.set_title("no minimum within reach, hence no Hessian at it;\nthe norm of the weights instead", fontsize=10)
        return
    offset = weights - run.minimum.weights
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


def _share_left(distance: Vector) -> str:
    """The share of the initial distance (K,) that is left at the end, in words."""
    share = float(distance[-1] / distance[0]) if distance[0] > 0 else 0.0
    return "none" if share < 5e-4 else f"{100 * share:.1f} %"


def _draw_distances(axes: "Axes", runs: Sequence[LinearRun]) -> None:
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


def _title(run: LinearRun) -> str:
    if not run.minimum.reached:
        return f"{run.label}: no minimum within reach"
    ends = f"{run.label} ends {np.linalg.norm(run.end - run.minimum.weights):.2g} from its minimum"
    distance = run.distance_to_truth(run.minimum.weights)
    if distance is None:
        return ends
    if distance < 1e-3:
        return f"{ends},\nwhich is at the true weights"
    return f"{ends},\n{run.distance_to_truth(run.end):.2g} from the true weights"
