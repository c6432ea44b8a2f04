"""Figures of linear models: surface.png (loss surfaces and trajectories) and outliers.png (the effect of outliers)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

from losslab.analysis.explain.figures import Array, draw_contours
from losslab.analysis.explain.linear.run import LinearRun
from losslab.io.figures import COLOURS, GREY, loss_colour, loss_styles, new_figure

_GRID = 121
_NOT_RECORDED = "the path of the weights was not recorded (callbacks.path)"
_PATH_COLOUR, _MINIMUM_COLOUR, _TRUTH_COLOUR = "#E69F00", "#F0E442", "#D55E00"


@dataclass(frozen=True)
class Plane:
    """A plane in weight space: θ = origin + x · axes[0] + y · axes[1]."""

    origin: Array
    """Weights θ (P,) at x = y = 0."""
    axes: Array
    """Two orthonormal directions (2, P)."""
    labels: tuple[str, str]
    """Labels of the x axis and the y axis."""

    def project(self, weights: Array) -> Array:
        """Return the coordinates (..., 2) of the projections of weights θ (..., P) onto the plane."""
        coordinates: Array = (weights - self.origin) @ self.axes.T
        return coordinates

    def weights(self, coordinates: Array) -> Array:
        """Return the weights θ (..., P) at coordinates (..., 2)."""
        weights: Array = self.origin + coordinates @ self.axes
        return weights


def plane_through(origin: Array, paths: Sequence[Array], hessian: Array) -> Plane:
    """Return the plane through an origin (P,) that contains most of the movement of the weights along paths (K, P).

    Two weights have only one plane. For more weights, the plane has the first two principal directions of the paths (Li
    et al. 2018), or without paths the steepest and the flattest eigenvector of the Hessian.
    """
    if len(origin) == 2:
        return Plane(np.zeros(2), np.eye(2), ("weight w", "bias b"))
    if not paths:
        _, vectors = np.linalg.eigh(hessian)
        labels = ("along the steepest eigenvector", "along the flattest eigenvector")
        return Plane(origin, vectors[:, [-1, 0]].T, labels)
    # Points are weighted by the length of their step, because most points are close to the end of a path.
    lengths = np.concatenate([np.linalg.norm(np.diff(path, axis=0), axis=1) for path in paths])
    points = (np.concatenate([path[1:] for path in paths]) - origin) * np.sqrt(lengths)[:, None]
    squares, vectors = np.linalg.eigh(points.T @ points)  # ascending
    shares = squares[:-3:-1] / max(squares.sum(), np.finfo(float).tiny)
    first, second = (
        f"{n} principal direction of the paths ({share:.0%})" for n, share in zip(("1st", "2nd"), shares, strict=True)
    )
    return Plane(origin, vectors[:, :-3:-1].T, (first, second))


def draw_surfaces(runs: Sequence[LinearRun]) -> Figure:
    """Draw the loss surface and the trajectory of each run on the same plane, and distances over steps in a panel."""
    first = runs[0]
    origin = first.centre if len(runs) == 1 or first.loss.true_weights is None else first.loss.true_weights
    paths = [run.trajectory.weights for run in runs if run.trajectory is not None]
    plane = plane_through(origin, paths, first.loss.hessian(first.centre))
    frame = _frame(runs, plane)
    width, height = frame[1] - frame[0]
    panel_height = 1.2 + 3.6 * float(height / width)
    columns = 2 if len(runs) == 4 else min(len(runs), 3)
    rows = -(-len(runs) // columns)
    if len(runs) == 1:
        figure = new_figure(10.6, max(panel_height, 4.4), dpi=120)
        surfaces, below = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.2, 1)).ravel()
        _draw_directions(below.subplots(), first)
    else:
        figure = new_figure(5 * columns, rows * panel_height + 3.8, dpi=120)
        heights = (rows * panel_height + 0.4, 3.4)
        surfaces, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights).ravel()
        surfaces.suptitle(
            "All panels show the same plane of weights, each with the values of its own loss", fontsize=10
        )
        _draw_distances(below.subplots(), runs)
    panels = [surfaces.add_subplot(rows, columns, number) for number in range(1, len(runs) + 1)]
    for axes, run in zip(panels, runs, strict=True):
        _draw_surface(axes, run, plane, frame)
    panels[0].legend(fontsize=7, loc="best", framealpha=0.85)
    return figure


def describe_ends(runs: Sequence[LinearRun]) -> list[str]:
    """Describe where each run ended, in a sentence each."""
    sentences = [_title(run).replace("\n", " ") for run in runs]
    if len(runs) == 1 and runs[0].is_curved:
        values = runs[0].curvature[0]
        eigenvalues = f"Hessian eigenvalues {values[0]:.6g} to {values[-1]:.4g}"
        sentences[0] += f"; {eigenvalues}, largest stable learning rate {runs[0].max_stable_lr:.4g}"
    return sentences


def _frame(runs: Sequence[LinearRun], plane: Plane) -> tuple[Array, Array]:
    """Return the lower left and the upper right corner of a frame around all runs, with a margin."""
    paths = [run.trajectory.weights for run in runs if run.trajectory is not None]
    truths = [run.loss.true_weights for run in runs if run.loss.true_weights is not None]
    weights = [np.stack([run.centre for run in runs]), np.stack([run.end for run in runs]), *paths, *truths]
    points = np.concatenate([plane.project(each).reshape(-1, 2) for each in weights])
    low, high = points.min(0), points.max(0)
    # Each side is at least 0.6 of the other, because a surface would not be visible in a narrow frame.
    half = np.maximum((high - low) / 2, 0.6 * (high - low).max() / 2)
    half = 1.15 * np.where(half > 0, half, 1.0)
    return (low + high) / 2 - half, (low + high) / 2 + half


def _draw_surface(axes: Axes, run: LinearRun, plane: Plane, frame: tuple[Array, Array]) -> None:
    xs, ys = (np.linspace(*ends, _GRID) for ends in zip(*frame, strict=True))
    with np.errstate(all="ignore"):
        grid = plane.weights(np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2))
        losses = run.loss.values(grid).reshape(_GRID, _GRID)
    draw_contours(axes, xs, ys, losses, f"{run.solution.loss} loss, mean of the examples")
    if len(plane.origin) == 2 and run.is_curved:
        _draw_eigenvectors(axes, run, frame)
    _draw_path(axes, run, plane)
    axes.set(xlim=(xs[0], xs[-1]), ylim=(ys[0], ys[-1]), xlabel=plane.labels[0], ylabel=plane.labels[1])
    axes.set_aspect("equal")
    axes.set_title(_title(run), fontsize=10)


def _draw_eigenvectors(axes: Axes, run: LinearRun, frame: tuple[Array, Array]) -> None:
    """Draw the Hessian's eigenvectors at the minimum as the half-axes of an ellipse of equal loss."""
    values, vectors = run.curvature
    middle, half = (frame[0] + frame[1]) / 2, (frame[1] - frame[0]) / 2
    size = 2 * float(half.min())
    flattest = values[-1] if values[-1] > 0 else values[0]
    for value, vector in zip(values, vectors.T, strict=True):
        reach = 0.2 * size * np.sqrt(flattest / value) * vector if value > 0 else 0.2 * size * vector
        tips = [run.minimum.weights - reach, run.minimum.weights + reach]
        axes.plot(*np.stack(tips).T, color="white", linewidth=1.5, zorder=3)
        # The label is at the tip that is farther from the edge of the axes.
        tip = min(tips, key=lambda end: float(np.abs((end - middle) / half).max()))
        offset, align = ((-6, 4), "right") if tip[0] > middle[0] else ((6, 4), "left")
        _annotate(axes, f"λ {value:.4g}", tip, offset, align)


def _draw_path(axes: Axes, run: LinearRun, plane: Plane) -> None:
    """Draw the trajectory with some epochs marked, its end, the minimum of the loss, and the true weights."""
    if run.trajectory is not None:
        epochs = run.trajectory.epochs
        x, y = plane.project(run.trajectory.weights).T
        style: dict[str, Any] = {"linewidth": 1.8, "path_effects": _outline(3.5), "zorder": 4}
        axes.plot(x, y, color=_PATH_COLOUR, label="path (numbers: epochs)", **style)
        for epoch in (0, *(10**power for power in range(1, 9))):
            if epoch < epochs[-1]:
                row = int(np.searchsorted(epochs, epoch))
                axes.plot(x[row], y[row], "o", color=_PATH_COLOUR, markeredgecolor="black", markersize=5, zorder=5)
                _annotate(axes, str(epoch or "start"), (x[row], y[row]), (6, 5))
    points = [(run.end, "end", "o", "white", 9.0)]
    if run.minimum.reached:
        points.append((run.minimum.weights, "minimum of this loss", "*", _MINIMUM_COLOUR, 13))
    if run.loss.true_weights is not None:
        points.append((run.loss.true_weights, "true weights (least-squares fit to the truth)", "X", _TRUTH_COLOUR, 6.5))
    for zorder, (weights, label, marker, colour, size) in enumerate(points, 6):
        style = {"color": colour, "markersize": size, "markeredgecolor": "black", "zorder": zorder}
        axes.plot(*plane.project(weights), marker, label=label, **style)


def _annotate(axes: Axes, text: str, point: Any, offset: tuple[int, int], align: str = "left") -> None:
    """Write an outlined text next to a point, at an offset in font points."""
    style: dict[str, Any] = {"fontsize": 8, "color": "white", "path_effects": _outline(2), "zorder": 8, "ha": align}
    axes.annotate(text, point, offset, textcoords="offset points", **style)


def _outline(width: float) -> list[Stroke | Normal]:
    """Return the path effect of a black outline, which is visible on all colours."""
    return [Stroke(linewidth=width, foreground="black"), Normal()]


def _draw_directions(axes: Axes, run: LinearRun) -> None:
    """Draw the distance from the minimum along the extreme eigenvectors, and the distance that the Hessian predicts."""
    axes.set(xlabel="steps", ylabel="distance from the minimum along that direction")
    axes.grid(alpha=0.3)
    if run.trajectory is None:
        axes.set_title(_NOT_RECORDED, fontsize=10)
        return
    steps, weights = run.trajectory.steps, run.trajectory.weights
    if not run.minimum.reached:  # the loss keeps falling as the weights grow
        axes.plot(steps, np.linalg.norm(weights, axis=1), color=COLOURS[0], linewidth=1.8)
        axes.set_ylabel("norm of the weights")
        axes.set_title("no minimum was found, so there is no Hessian;\nthis is the norm of the weights", fontsize=10)
        return
    offset = weights - run.minimum.weights
    lines: dict[str, tuple[Array, float | None]]
    if not run.is_curved:
        lines = {"all weights together": (np.linalg.norm(offset, axis=1), None)}
        axes.set_ylabel("distance from the minimum")
        axes.set_title("the loss is piecewise linear:\nits Hessian is 0 wherever it exists", fontsize=10)
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


def _share_left(distance: Array) -> str:
    """Format the last of the distances (K,) as a share of the first."""
    share = float(distance[-1] / distance[0]) if distance[0] > 0 else 0.0
    return "none" if share < 5e-4 else f"{100 * share:.1f} %"


def _draw_distances(axes: Axes, runs: Sequence[LinearRun]) -> None:
    """Draw each run's distance from the true weights, or from its own minimum if not all true weights are known."""
    to_truth = all(run.loss.true_weights is not None for run in runs)
    goal = "the true weights" if to_truth else "its own minimum"
    lines = {}
    for run, style in zip(runs, _styles(runs), strict=True):
        target = run.loss.true_weights if to_truth else run.minimum.weights
        if run.trajectory is not None and target is not None and (run.minimum.reached or to_truth):
            label = run.solution.label
            lines[label] = np.linalg.norm(run.trajectory.weights - target, axis=1)
            axes.plot(run.trajectory.steps[1:], lines[label][1:], linewidth=1.8, label=label, **style)
    axes.set(xlabel="steps", ylabel=f"distance from {goal}")
    axes.grid(alpha=0.3)
    if not lines:
        recorded = any(run.trajectory is not None for run in runs)
        axes.set_title("no minimum was found for any run" if recorded else _NOT_RECORDED, fontsize=10)
        return
    final = sorted((float(line[-1]), label) for label, line in lines.items())
    (near, nearest), (far, farthest) = final[0], final[-1]
    others = f", {farthest} farthest ({far:.2g})" if len(final) > 1 else ""
    axes.set_title(f"{nearest} ends nearest to {goal} ({near:.2g}){others}", fontsize=10)
    _set_log_scales(axes, list(lines.values()))


def _styles(runs: Sequence[LinearRun]) -> list[dict[str, Any]]:
    return loss_styles([run.solution.label for run in runs])


def _set_log_scales(axes: Axes, lines: Sequence[Array]) -> None:
    """Make both axes logarithmic. Distances below 1e-4 of the largest are rounding errors and are cut off."""
    axes.set(xscale="log", yscale="log")
    top = max(float(line.max()) for line in lines) or 1.0
    low = min(float(line[1:].min()) for line in lines if len(line) > 1)
    axes.set_ylim(max(low, 1e-4 * top) / 1.5, 2 * top)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=8)


def _title(run: LinearRun) -> str:
    if not run.minimum.reached:
        return f"{run.solution.label}: no minimum was found"
    ends = f"{run.solution.label} ends {np.linalg.norm(run.end - run.minimum.weights):.2g} from its minimum"
    distance = run.distance_to_truth(run.minimum.weights)
    if distance is None:
        return ends
    if distance < 1e-3:
        return f"{ends},\nwhich is at the true weights"
    return f"{ends},\n{run.distance_to_truth(run.end):.2g} from the true weights"


def describe_shifts(runs: Sequence[LinearRun]) -> str:
    """Describe in a sentence how far the outliers move the minimum of each loss."""
    moved = ", ".join(f"{run.outlier_shift:.2g} ({run.solution.label})" for run in _farthest_first(runs))
    return f"{100 * runs[0].outlier_share:.0f} % of the targets are outliers: they move the minimum by {moved}"


def _shifts_title(runs: Sequence[LinearRun]) -> str:
    ordered = _farthest_first(runs)
    farthest, nearest = ordered[0], ordered[-1]
    start = f"{100 * farthest.outlier_share:.0f} % outliers move the minimum of {farthest.solution.label} by"
    if len(runs) == 1:
        return f"{start} {farthest.outlier_shift:.2g}"
    return f"{start} {farthest.outlier_shift:.2g}, that of {nearest.solution.label} by {nearest.outlier_shift:.2g}"


def _farthest_first(runs: Sequence[LinearRun]) -> list[LinearRun]:
    return sorted(runs, key=lambda run: -run.outlier_shift)


def draw_outliers(runs: Sequence[LinearRun]) -> Figure:
    """Draw how the outliers move the minima: as fitted lines if there is one feature, otherwise as distances."""
    loss = runs[0].loss
    one_feature = len(loss.names) == 2 and loss.inputs[0].numel() == 1
    figure = new_figure(8.4, 5.2 if one_feature else 2 + 0.3 * len(runs), dpi=120)
    axes = figure.subplots()
    if one_feature:
        _draw_fits(axes, runs)
    else:
        _draw_shifts(axes, _farthest_first(runs))
    axes.grid(alpha=0.3)
    axes.set_title(_shifts_title(runs), fontsize=10)
    return figure


def _draw_fits(axes: Axes, runs: Sequence[LinearRun]) -> None:
    """Draw the targets, and for each run the line at its minimum with and without outliers."""
    loss = runs[0].loss
    x, target, truth = (values.flatten().numpy() for values in (loss.inputs, loss.target, loss.truth))
    outlier = target != truth
    ends = np.array([x.min(), x.max()])
    fits = [(run.minimum.weights, run.clean_minimum.weights) for run in runs]
    values = np.concatenate([truth, *(slope * ends + intercept for pair in fits for slope, intercept in pair)])
    # The y axis covers twice the range of truth and fits. If it covered all outliers, the fits would look the same.
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
    for run, (fit, clean), style in zip(runs, fits, _styles(runs), strict=True):
        lines = f"{fit[0]:.2f} x {fit[1]:+.2f}, without {clean[0]:.2f} x {clean[1]:+.2f}"
        axes.plot(ends, fit[0] * ends + fit[1], linewidth=2.2, label=f"{run.solution.label}: {lines}", **style)
        axes.plot(ends, clean[0] * ends + clean[1], linewidth=1, alpha=0.5, **style)
    margin = 0.04 * (high - low)
    axes.set(xlabel="x", ylabel="y", ylim=(low - margin, high + margin))
    axes.legend(fontsize=8, title="bold with outliers, thin without", title_fontsize=8)


def _draw_shifts(axes: Axes, runs: Sequence[LinearRun]) -> None:
    """Draw, in a row for each run, the distances of its minimum and its end from its minimum without outliers."""
    lengths = []
    for row, run in enumerate(runs):
        end, colour = float(np.linalg.norm(run.end - run.clean_minimum.weights)), loss_colour(run.solution.label)
        lengths += [run.outlier_shift, end]
        axes.plot([run.outlier_shift, end], [row, row], color=colour, linewidth=1.6)
        axes.plot(run.outlier_shift, row, "o", color=colour, markersize=8)
        axes.plot(end, row, "|", color="black", markersize=13, markeredgewidth=1.6)
    axes.plot([], [], "o", color=GREY, label="the minimum of the loss on the targets")
    axes.plot([], [], "|", color="black", markersize=11, linestyle="none", label="the end of training")
    if max(lengths) > 10 * min(lengths) > 0:
        axes.set_xscale("log")
    else:
        axes.set_xlim(0, 1.15 * max(lengths) or 1.0)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(runs)), [run.solution.label for run in runs])
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.set_xlabel("distance from the minimum of the same loss without outliers (all weights together)")
    axes.legend(fontsize=8)
