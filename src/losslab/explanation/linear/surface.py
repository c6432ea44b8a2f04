"""The loss surface of linear models, and the way training took over it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from losslab.explanation.contours import contours, written
from losslab.explanation.linear import progress
from losslab.explanation.linear.case import Case
from losslab.explanation.linear.plane import Plane
from losslab.explanation.linear.problem import Vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.patheffects import Normal, Stroke

_GRID = 121
_PATH, _MINIMUM, _LAW = "#E69F00", "#F0E442", "#D55E00"


def draw(cases: Sequence[Case], plane: Plane) -> "Figure":
    """The surface of each run with its path, all over the same weights, each in the units of its own loss."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    frame = _frame(cases, plane)
    ratio = float(np.divide(*(frame[1] - frame[0])[::-1]))
    alone, columns = len(cases) == 1, 2 if len(cases) == 4 else min(len(cases), 3)
    rows = -(-len(cases) // columns)
    height = 1.2 + 3.6 * ratio
    if alone:
        figure = Figure(figsize=(10.6, max(height, 4.4)), dpi=120, layout="constrained")
        above, below = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.2, 1)).ravel()
        progress.directions(below.subplots(), cases[0])
    else:
        figure = Figure(figsize=(5 * columns, rows * height + 3.8), dpi=120, layout="constrained")
        heights = (rows * height + 0.4, 3.4)
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights).ravel()
        above.suptitle(
            "The same weights in every panel; colours are in the units of each panel's own loss", fontsize=10
        )
        progress.distances(below.subplots(), cases)
    grid = above.subplots(rows, columns, squeeze=False).ravel()
    for axes, case in zip(grid, cases, strict=False):
        _surface(above, axes, case, plane, frame)
    grid[0].legend(fontsize=7, loc="best", framealpha=0.85)
    for axes in grid[len(cases) :]:
        axes.set_visible(False)
    return figure


def findings(cases: Sequence[Case]) -> list[str]:
    """What the figure says, a line for each run."""
    said = [_title(case).replace("\n", " ") for case in cases]
    if len(cases) == 1 and cases[0].curved:
        values = cases[0].curvature[0]
        said[0] += f"; Hessian {values[0]:.6g} to {values[-1]:.4g}, largest stable rate {cases[0].largest_rate:.4g}"
    return said


def _frame(cases: Sequence[Case], plane: Plane) -> tuple[Vector, Vector]:
    """The lower left and the upper right corner around all that is to be seen, and room around it."""
    ways = [case.path.weights for case in cases if case.path is not None]
    laws = [case.problem.law for case in cases if case.problem.law is not None]
    places = [np.stack([case.centre for case in cases]), np.stack([case.end for case in cases]), *ways, *laws]
    seen = np.concatenate([plane.at(place).reshape(-1, 2) for place in places])
    low, high = seen.min(0), seen.max(0)
    # A valley that is seen as a line shows nothing: no side is much shorter than the other.
    half = np.maximum((high - low) / 2, 0.6 * (high - low).max() / 2)
    half = 1.15 * np.where(half > 0, half, 1.0)
    return (low + high) / 2 - half, (low + high) / 2 + half


def _surface(figure: "SubFigure", axes: "Axes", case: Case, plane: Plane, frame: tuple[Vector, Vector]) -> None:
    """One panel."""
    from matplotlib.colors import LogNorm, Normalize  # noqa: PLC0415

    xs, ys = (np.linspace(*ends, _GRID) for ends in zip(*frame, strict=True))
    with np.errstate(all="ignore"):
        grid = plane.weights(np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2))
        loss = np.ma.masked_invalid(case.problem.losses(grid).reshape(_GRID, _GRID))
    levels, logarithmic = contours(float(loss.min()), float(loss.max()))
    norm = (LogNorm if logarithmic else Normalize)(levels[0], levels[-1])
    fine = (np.geomspace if logarithmic else np.linspace)(levels[0], levels[-1], 60)
    shades = axes.contourf(xs, ys, loss, fine, norm=norm, cmap="viridis", extend="both")
    lines = axes.contour(xs, ys, loss, levels, colors="white", linewidths=0.6, alpha=0.7)
    axes.clabel(lines, levels[3::2], fontsize=7, fmt=written(levels))
    beside = axes.inset_axes((1.03, 0, 0.045, 1))  # as tall as the panel, whose shape is that of the frame
    bar = figure.colorbar(shades, cax=beside, ticks=levels[::2], format=written(levels))
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=8)
    bar.set_label(f"{case.solution.loss} loss, mean of the examples", fontsize=8)
    if len(plane.origin) == 2 and case.curved:
        _axes_of_curvature(axes, case, frame)
    _way(axes, case, plane)
    axes.set(xlim=(xs[0], xs[-1]), ylim=(ys[0], ys[-1]), xlabel=plane.labels[0], ylabel=plane.labels[1])
    axes.set_aspect("equal")
    axes.set_title(_title(case), fontsize=10)


def _axes_of_curvature(axes: "Axes", case: Case, frame: tuple[Vector, Vector]) -> None:
    """The eigenvectors of the Hessian at the minimum, as long as the ellipse of equal loss is wide there."""
    values, vectors = case.curvature
    middle, size = (frame[0] + frame[1]) / 2, float((frame[1] - frame[0]).min())
    widest = values[-1] if values[-1] > 0 else values[0]
    for value, vector in zip(values, vectors.T, strict=True):
        reach = 0.2 * size * np.sqrt(widest / value) * vector if value > 0 else 0.2 * size * vector
        tips = [case.minimum.weights - reach, case.minimum.weights + reach]
        axes.plot(*np.stack(tips).T, color="white", linewidth=1.5, zorder=3)
        # The end that is nearer to the middle of the picture is sure to be in it.
        tip = min(tips, key=lambda end: float(np.abs(end - middle).sum()))
        axes.annotate(
            f"λ {value:.4g}", tip, (-6, 4), textcoords="offset points", ha="right", fontsize=8, color="white",
            path_effects=_edge(2), zorder=8,
        )  # fmt: skip


def _way(axes: "Axes", case: Case, plane: Plane) -> None:
    """The path from its start to its end, the minimum, and the law."""
    if case.path is not None:
        x, y = plane.at(case.path.weights).T
        axes.plot(x, y, color=_PATH, linewidth=1.8, path_effects=_edge(3.5), zorder=4, label="path, by epochs")
        for epoch in (0, *(10**power for power in range(1, 9))):
            if epoch < case.path.epochs[-1]:
                at = int(np.searchsorted(case.path.epochs, epoch))
                axes.plot(x[at], y[at], "o", color=_PATH, markeredgecolor="black", markersize=5, zorder=5)
                axes.annotate(
                    str(epoch or "start"), (x[at], y[at]), (6, 5), textcoords="offset points", fontsize=8,
                    color="white", path_effects=_edge(2), zorder=8,
                )  # fmt: skip
    marks: dict[str, Any] = {"markeredgecolor": "black", "linestyle": "none"}
    axes.plot(*plane.at(case.end), marker="o", color="white", markersize=9, label="end", zorder=6, **marks)
    if case.minimum.reached:
        lowest = plane.at(case.minimum.weights)
        axes.plot(*lowest, marker="*", color=_MINIMUM, markersize=13, label="minimum of this loss", zorder=7, **marks)
    if case.problem.law is not None:
        law = plane.at(case.problem.law)
        axes.plot(
            *law,
            marker="X",
            color=_LAW,
            markersize=6.5,
            label="true law (least squares of the truth)",
            zorder=8,
            **marks,
        )


def _edge(width: float) -> list["Stroke | Normal"]:
    """A black edge, so that what lies over the colours is seen on all of them."""
    from matplotlib.patheffects import Normal, Stroke  # noqa: PLC0415

    return [Stroke(linewidth=width, foreground="black"), Normal()]


def _title(case: Case) -> str:
    if not case.minimum.reached:
        return f"{case.label}: no minimum within reach"
    if case.off is None or case.astray is None:
        return f"{case.label} ends {case.missing:.2g} from its minimum"
    if case.astray < 1e-3:
        return f"{case.label} ends {case.missing:.2g} from its minimum,\nwhich is the true law"
    return f"{case.label} ends {case.missing:.2g} from its minimum,\n{case.off:.2g} from the true law"
