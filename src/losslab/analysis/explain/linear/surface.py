"""The plane in which the surface of a linear model is drawn.

How far from its goal a linear run was at each step.

The loss surface of linear models, and the way training took over it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from losslab.analysis.explain.figures import contours, written
from losslab.analysis.explain.linear.case import Case
from losslab.analysis.explain.linear.problem import Vector
from losslab.analysis.explain.solution import Path
from losslab.io.figures import COLOURS, line_styles


@dataclass(frozen=True)
class Plane:
    """All θ = origin + x · axes[0] + y · axes[1]."""

    origin: Vector
    """(P,)."""
    axes: Vector
    """Two orthonormal directions (2, P)."""
    labels: tuple[str, str]
    """What x and y are."""

    def at(self, weights: Vector) -> Vector:
        """Where weights (..., P) lie, seen from above the plane → (..., 2)."""
        seen: Vector = (weights - self.origin) @ self.axes.T
        return seen

    def weights(self, places: Vector) -> Vector:
        """θ (..., P) of places (..., 2) in the plane."""
        found: Vector = self.origin + places @ self.axes
        return found


def through(origin: Vector, ways: Sequence[Vector], hessian: Vector) -> Plane:
    """The plane through an origin in which most is to be seen.

    Of two weights it is that of the weights themselves. Of more it is the plane that lies nearest to the paths (their
    principal directions, as in Li et al. 2018), or without paths that of the steepest and the flattest direction.

    Args:
        origin: (P,).
        ways: the paths (K, P), perhaps none.
        hessian: of the loss (P, P).
    """
    if len(origin) == 2:
        return Plane(np.zeros(2), np.eye(2), ("weight w", "bias b"))
    if not ways:
        _, vectors = np.linalg.eigh(hessian)
        return Plane(
            origin, vectors[:, [-1, 0]].T, ("along the steepest eigenvector", "along the flattest eigenvector")
        )
    # By length and not by epoch: most epochs are spent near the end.
    parts = [np.diff(way, axis=0) for way in ways]
    lengths = np.concatenate([np.linalg.norm(part, axis=1) for part in parts])
    seen = (np.concatenate([way[1:] for way in ways]) - origin) * np.sqrt(lengths)[:, None]
    squares, vectors = np.linalg.eigh(seen.T @ seen)  # ascending
    shares = [f"{square / max(squares.sum(), np.finfo(float).tiny):.0%}" for square in squares[:-3:-1]]
    labels = [
        f"{n} principal direction of the paths ({share})" for n, share in zip(("1st", "2nd"), shares, strict=True)
    ]
    return Plane(origin, vectors[:, :-3:-1].T, (labels[0], labels[1]))


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
    for case, look in zip(cases, line_styles(), strict=False):
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
        directions(below.subplots(), cases[0])
    else:
        figure = Figure(figsize=(5 * columns, rows * height + 3.8), dpi=120, layout="constrained")
        heights = (rows * height + 0.4, 3.4)
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights).ravel()
        above.suptitle(
            "The same weights in every panel; colours are in the units of each panel's own loss", fontsize=10
        )
        distances(below.subplots(), cases)
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
