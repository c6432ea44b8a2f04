"""Explanation `landscape`: how loss and metric of a network rise around a solution, on a plane of random directions."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from losslab.analysis.explain.figures import (
    contour_levels,
    draw_contours,
    figures_folder,
    round_levels,
    save_figure,
    write_csv,
)
from losslab.analysis.explain.forward_passes import ForwardPasses, Score, Weights, show_progress
from losslab.analysis.explain.options import DEFAULTS, LandscapeOptions
from losslab.analysis.explain.solution import Solution, corruption_differs, load_batches, load_solutions
from losslab.io.figures import COLOURS, new_figure
from losslab.runs import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[np.float64]]
HALF = 0.5
"""The distance at which landscapes are compared in words."""
_TICKS = (-1, -HALF, 0, HALF, 1)


def explain(runs: Sequence[RunFolder], output: Path | None, options: LandscapeOptions = DEFAULTS) -> list[Path]:
    """Draw landscape.png, with its numbers in landscape.csv → the path of the figure.

    Each run is scored under its own loss, and under the common metric. An even number of points is raised to the next
    odd one, so that the solution is among them.

    Raises:
        LabError: a run does not exist, or its weights are not finite.
    """
    folder = figures_folder(runs, output)
    points = options.points + 1 - options.points % 2
    solutions = load_solutions(runs, options.ckpt)
    passes = [
        ForwardPasses(each, load_batches(each, options.split, options.examples, options.seed)) for each in solutions
    ]
    with show_progress("landscape", [(each, count_passes(points)) for each in passes]):
        landscapes = [compute_landscape(each, points, options.seed) for each in passes]
    note = f"{passes[0].examples:,} {options.split_name} examples, unaugmented"
    if corruption_differs(runs):
        note += ", each run's own, with its own noise and imbalance"
    note += f"; directions of seed {options.seed}, filters normalised"
    if any(each.has_batch_norm for each in passes):
        note += "; BatchNorm keeps the statistics of training"
    rows = [row for number, landscape in enumerate(landscapes) for row in landscape.rows(number)]
    write_csv(folder / "landscape.csv", ["run", "x", "y", "loss", "metric"], rows)
    return [save_figure(draw(landscapes, note), "landscape", runs, output, [finding(each) for each in landscapes])]


@dataclass(frozen=True)
class Landscape:
    """Scores around one solution. Distances are in filter lengths."""

    solution: Solution
    side: Array
    """Positions along both axes of the plane (P,), from -1 to 1."""
    plane: Array
    """Loss and metric (P, P, 2); the first index is along the second direction."""
    reach: Array
    """Positions along the lines (L,), from -1 to 1."""
    lines: Array
    """Loss and metric along the two directions (2, L, 2)."""

    @property
    def centre(self) -> Score:
        """The score of the solution itself."""
        return Score(*self.lines[0, len(self.reach) // 2])

    def rows(self, number: int) -> Iterator[tuple[float, ...]]:
        """Rows of the CSV file: the run's number, the position along both directions, loss and metric."""
        for y, row in zip(self.side, self.plane, strict=True):
            for x, score in zip(self.side, row, strict=True):
                yield (number, x, y, *score)
        for at, first, second in zip(self.reach[1::2], *self.lines[:, 1::2], strict=True):  # the others are above
            yield (number, at, 0.0, *first)
            yield (number, 0.0, at, *second)

    def around(self, distance: float) -> Score:
        """The mean score at about this distance, along both directions and both ways."""
        near = np.isclose(np.abs(self.reach), self.reach[np.abs(self.reach - distance).argmin()])
        return Score(*self.lines[:, near].mean((0, 1)))

    def format_metric(self, value: float) -> str:
        """A value of the metric in words, such as "2.1 %"."""
        return f"{value:.3g}" if self.solution.is_regression else f"{100 * value:.1f} %"


def count_passes(points: int) -> int:
    """The number of forward passes that a landscape takes."""
    return points**2 + 2 * (2 * points - 1)


def compute_landscape(passes: ForwardPasses, points: int, seed: int) -> Landscape:
    """Score the plane of two random filter-normalised directions, and more finely the two lines along them.

    Args:
        passes: of the solution at the centre.
        points: along each side of the plane.
        seed: of the directions.
    """
    solution = passes.solution
    network = solution.learner.network
    first, second = (
        filter_normalised(network, torch.Generator().manual_seed(2 * seed + number), solution.frozen)
        for number in (0, 1)
    )

    def score(x: float, y: float) -> Score:
        weights = network.named_parameters()
        return passes.score({f"network.{n}": w.detach() + x * first[n] + y * second[n] for n, w in weights})

    side, reach = np.linspace(-1, 1, points), np.linspace(-1, 1, 2 * points - 1)
    plane = np.array([[score(x, y) for x in side] for y in side])
    lines = np.array([[score(x, 0) for x in reach], [score(0, y) for y in reach]])
    return Landscape(solution, side, plane, reach, lines)


def filter_normalised(network: nn.Module, generator: torch.Generator, frozen: Collection[str] = ()) -> Weights:
    """A random direction in which every filter has the length of the network's own filter.

    A filter makes one output of a layer: a row of a linear layer, an output channel of a convolution. A step of 1 moves
    each filter by its own length, so that networks of different weight scale are comparable. Biases, the parameters of
    normalisation layers and frozen parameters do not move. Li et al., "Visualizing the loss landscape of neural nets",
    2018, arXiv 1712.09913, section 4.

    Args:
        network: with weights (outputs, ...).
        generator: on the CPU, so that directions do not depend on the device.
        frozen: names of parameters that were not trained.
    """
    direction = {}
    for name, weight in network.named_parameters():
        random = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        if weight.ndim < 2 or name in frozen:
            direction[name] = torch.zeros_like(weight)
            continue
        own, drawn = (values.flatten(1).norm(dim=1) for values in (weight.detach().double().cpu(), random))
        scale = (own / drawn).view(-1, *[1] * (weight.ndim - 1))
        direction[name] = (random * scale).to(weight)
    return direction


def finding(landscape: Landscape) -> str:
    """How fast loss and metric rise around a solution."""
    here, there = landscape.centre, landscape.around(HALF)
    metric = f"{landscape.format_metric(here.metric)} to {landscape.format_metric(there.metric)}"
    return (
        f"{landscape.solution.label}: half a filter's length away the {landscape.solution.metric_name} goes from "
        f"{metric}, the loss from {here.loss:.3g} to {there.loss:.3g}"
    )


def draw(landscapes: Sequence[Landscape], note: str) -> "Figure":
    """Draw a row for each solution: loss on the plane, metric on the plane, and both along the two lines.

    The metric has one colour scale for all solutions. Each loss has its own, as its values are not comparable.
    """
    figure = new_figure(14.2, 0.6 + 4.3 * len(landscapes))
    grid = figure.subplots(len(landscapes), 3, squeeze=False)
    metrics = np.concatenate([landscape.plane[..., 1].ravel() for landscape in landscapes])
    finite = metrics[np.isfinite(metrics)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    for (loss_axes, metric_axes, line_axes), landscape in zip(grid, landscapes, strict=True):
        solution, here, there = landscape.solution, landscape.centre, landscape.around(HALF)
        losses = np.ma.masked_invalid(landscape.plane[..., 0])
        limits = (float(losses.min()), float(losses.max())) if losses.count() else (0.0, 1.0)
        _draw_plane(loss_axes, landscape, losses, contour_levels(*limits), f"{solution.loss} loss", "viridis")
        losses_in_words = f"loss {here.loss:.3g}, {there.loss:.3g} at distance {HALF:g}"
        loss_axes.set_title(f"{solution.label}: {losses_in_words}", fontsize=10)
        scale = solution.metric_scale
        values = np.ma.masked_invalid(scale * landscape.plane[..., 1])
        levels = round_levels(scale * low, scale * high)
        _draw_plane(metric_axes, landscape, values, (levels, False), solution.metric_axis, "cividis")
        metrics_in_words = (landscape.format_metric(each.metric) for each in (here, there))
        metric_axes.set_title(
            f"{solution.label}: {solution.metric_name} {', '.join(metrics_in_words)} at distance {HALF:g}", fontsize=10
        )
        _draw_lines(line_axes, landscape, (scale * low, scale * high))
    figure.supxlabel(note, fontsize=8)
    return figure


def _draw_plane(
    axes: "Axes", landscape: Landscape, values: Array, scale: tuple[Array, bool], unit: str, cmap: str
) -> None:
    draw_contours(axes, landscape.side, landscape.side, values, scale, unit, cmap)
    axes.plot(0, 0, "*", color="#F0E442", markeredgecolor="black", markersize=13)
    axes.set(xlabel="1st random direction (filter lengths)", ylabel="2nd random direction (filter lengths)")
    axes.set(xticks=_TICKS, yticks=_TICKS)
    axes.set_aspect("equal")


def _draw_lines(axes: "Axes", landscape: Landscape, limits: tuple[float, float]) -> None:
    """Draw the loss on the left axis and the metric on the right one."""
    solution = landscape.solution
    right = axes.twinx()
    for number, (style, word) in enumerate((("-", "1st"), ("--", "2nd"))):
        loss, metric = landscape.lines[number].T
        axes.plot(landscape.reach, loss, style, color=COLOURS[0], linewidth=1.8, label=f"{word} direction")
        right.plot(landscape.reach, solution.metric_scale * metric, style, color=COLOURS[1], linewidth=1.4)
    low, high = limits
    right.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low) or 1.0)
    losses = landscape.lines[..., 0]
    if losses.min() > 0 and losses.max() > 100 * losses.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    axes.set(xlabel="distance from the solution (filter lengths)", xticks=_TICKS)
    axes.set_box_aspect(1)  # as tall as the planes
    right.set_box_aspect(1)
    axes.set_ylabel(f"{solution.loss} loss", color=COLOURS[0])
    right.set_ylabel(solution.metric_axis, color=COLOURS[1])
    axes.legend(fontsize=8, loc="upper center")
    axes.grid(alpha=0.3)
    axes.set_title("Along the two directions", fontsize=10)
