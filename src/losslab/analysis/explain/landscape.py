"""Explanation `landscape`: loss and metric of a network on a random plane through its trained weights."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from losslab.analysis.explain import DEFAULTS, SPLITS, LandscapeOptions
from losslab.analysis.explain.figures import Array, draw_contours, figures_folder, round_levels, save_figure, write_csv
from losslab.analysis.explain.forward_passes import ForwardPasses, Score, Weights, show_progress
from losslab.analysis.explain.solution import Solution, corruption_differs, load_batches, load_solutions
from losslab.io.figures import GREY, loss_colour, new_figure
from losslab.runs import RunFolder

HALF = 0.5
"""Titles and findings state loss and metric at this distance from the trained weights, in filter lengths."""
_TICKS = (-1, -HALF, 0, HALF, 1)


def explain(runs: Sequence[RunFolder], output: Path | None, options: LandscapeOptions = DEFAULTS) -> list[Path]:
    """Draw landscape.png, write its numbers to landscape.csv, and return the path of the figure.

    Each run is scored with its own loss and with the metric, which is the same for all runs. An even number of points
    is increased by one, so that the trained weights are one of the points.

    Raises:
        LabError: a run does not exist, or its weights are not finite.
    """
    folder = figures_folder(runs, output)
    points = options.points + 1 - options.points % 2
    solutions = load_solutions(runs, options.ckpt)
    batches = [load_batches(each, options.split, options.examples, options.seed) for each in solutions]
    passes = [ForwardPasses(*pair) for pair in zip(solutions, batches, strict=True)]
    with show_progress("landscape", passes, count_passes(points)):
        landscapes = [compute_landscape(each, points, options.seed) for each in passes]
    note = f"{passes[0].examples:,} {SPLITS[options.split]} examples, unaugmented"
    if corruption_differs(runs):
        note += ", with the noise and imbalance of each run"
    note += f"; directions of seed {options.seed}, filters normalised"
    if any(each.has_batch_norm for each in passes):
        note += "; BatchNorm keeps the statistics of training"
    rows = [row for number, landscape in enumerate(landscapes) for row in landscape.rows(number)]
    write_csv(folder / "landscape.csv", ["run", "x", "y", "loss", "metric"], rows)
    return [save_figure(draw(landscapes, note), "landscape", runs, output, [finding(each) for each in landscapes])]


@dataclass(frozen=True)
class Landscape:
    """Loss and metric around the trained weights of one run. The unit of length is that of `filter_normalised`."""

    solution: Solution
    plane_axis: Array
    """Positions along each of the two directions of the plane (P,), from -1 to 1."""
    plane: Array
    """Loss and metric on the plane (P, P, 2). The first dimension is the position along the second direction."""
    line_axis: Array
    """Positions on each of the two lines (L,), from -1 to 1."""
    lines: Array
    """Loss and metric on the lines along the first and the second direction (2, L, 2)."""

    def rows(self, number: int) -> Iterator[tuple[float, ...]]:
        """Yield the rows of landscape.csv: number of the run, position along both directions, loss and metric."""
        for y, row in zip(self.plane_axis, self.plane, strict=True):
            for x, score in zip(self.plane_axis, row, strict=True):
                yield (number, x, y, *score)
        # Every second point of the lines is also a point of the plane.
        for at, first, second in zip(self.line_axis[1::2], *self.lines[:, 1::2], strict=True):
            yield (number, at, 0.0, *first)
            yield (number, 0.0, at, *second)

    def score_at(self, distance: float) -> Score:
        """Return the mean score of those points on both lines whose distance from the centre is nearest to this one."""
        near = np.isclose(np.abs(self.line_axis), self.line_axis[np.abs(self.line_axis - distance).argmin()])
        return Score(*self.lines[:, near].mean((0, 1)))

    def format_metric(self, value: float) -> str:
        """Format a value of the metric, such as "2.1 %"."""
        return f"{value:.3g}" if self.solution.is_regression else f"{100 * value:.1f} %"


def count_passes(points: int) -> int:
    """Return the number of forward passes that `compute_landscape` makes."""
    return points**2 + 2 * (2 * points - 1)


def compute_landscape(passes: ForwardPasses, points: int, seed: int) -> Landscape:
    """Compute loss and metric on a plane of two filter-normalised random directions, and on a line along each.

    Each side of the plane has `points` points; the lines have twice this resolution.
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

    plane_axis, line_axis = np.linspace(-1, 1, points), np.linspace(-1, 1, 2 * points - 1)
    plane = np.array([[score(x, y) for x in plane_axis] for y in plane_axis])
    lines = np.array([[score(x, 0) for x in line_axis], [score(0, y) for y in line_axis]])
    return Landscape(solution, plane_axis, plane, line_axis, lines)


def filter_normalised(network: nn.Module, generator: torch.Generator, frozen: Collection[str] = ()) -> Weights:
    """Draw a random direction in weight space in which each filter has the same norm as in the network.

    A filter is a row of a linear layer or an output channel of a convolution. A step of 1, a filter length, moves each
    filter by its own norm, so that networks with weights of different scales are comparable. The direction is 0 for
    biases, parameters of normalisation layers, and parameters named in `frozen`. The generator is on the CPU, so that
    directions do not depend on the device. Li et al., "Visualizing the loss landscape of neural nets", 2018, section 4.
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
    """Describe in a sentence how loss and metric differ between the trained weights and points at distance `HALF`."""
    here, there = landscape.score_at(0), landscape.score_at(HALF)
    metric = f"{landscape.format_metric(here.metric)} to {landscape.format_metric(there.metric)}"
    return (
        f"{landscape.solution.label}: half a filter length away, the {landscape.solution.metric_name} goes from "
        f"{metric}, the loss from {here.loss:.3g} to {there.loss:.3g}"
    )


def draw(landscapes: Sequence[Landscape], note: str) -> Figure:
    """Draw a row for each run: the loss on the plane, the metric on the plane, and both on the two lines.

    All runs have the same colour scale for the metric. For the loss, each run has its own, because values of different
    losses are not comparable.
    """
    figure = new_figure(14.2, 0.6 + 4.3 * len(landscapes))
    grid = figure.subplots(len(landscapes), 3, squeeze=False)
    finite = np.concatenate([each.plane[..., 1][np.isfinite(each.plane[..., 1])] for each in landscapes])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    for (loss_axes, metric_axes, line_axes), landscape in zip(grid, landscapes, strict=True):
        solution, here, there = landscape.solution, landscape.score_at(0), landscape.score_at(HALF)
        _draw_plane(loss_axes, landscape, landscape.plane[..., 0], f"{solution.loss} loss")
        losses = f"loss {here.loss:.3g}, {there.loss:.3g}"
        loss_axes.set_title(f"{solution.label}: {losses} at distance {HALF:g}", fontsize=10)
        scale = solution.metric_scale
        style = {"cmap": "cividis", "levels": round_levels(scale * low, scale * high)}
        _draw_plane(metric_axes, landscape, scale * landscape.plane[..., 1], solution.metric_axis, **style)
        metrics = ", ".join(landscape.format_metric(each.metric) for each in (here, there))
        metric_axes.set_title(f"{solution.label}: {solution.metric_name} {metrics} at distance {HALF:g}", fontsize=10)
        _draw_lines(line_axes, landscape, (scale * low, scale * high))
    figure.supxlabel(note, fontsize=8)
    return figure


def _draw_plane(axes: Axes, landscape: Landscape, values: Array, unit: str, **style: Any) -> None:
    draw_contours(axes, landscape.plane_axis, landscape.plane_axis, values, unit, **style)
    axes.plot(0, 0, "*", color="#F0E442", markeredgecolor="black", markersize=13)
    axes.set(xlabel="1st random direction (filter lengths)", ylabel="2nd random direction (filter lengths)")
    axes.set(xticks=_TICKS, yticks=_TICKS)
    axes.set_aspect("equal")


def _draw_lines(axes: Axes, landscape: Landscape, limits: tuple[float, float]) -> None:
    """Draw the loss on the left axis, in its colour, and the metric on the right axis, along both directions."""
    solution, colour = landscape.solution, loss_colour(landscape.solution.loss)
    right = axes.twinx()
    for number, (style, word) in enumerate((("-", "1st"), ("--", "2nd"))):
        loss, metric = landscape.lines[number].T
        axes.plot(landscape.line_axis, loss, style, color=colour, linewidth=1.8, label=f"{word} direction")
        right.plot(landscape.line_axis, solution.metric_scale * metric, style, color=GREY, linewidth=1.4)
    low, high = limits
    right.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low) or 1.0)
    losses = landscape.lines[..., 0]
    if losses.min() > 0 and losses.max() > 100 * losses.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    axes.set(xlabel="distance from the trained weights (filter lengths)", xticks=_TICKS)
    axes.set_box_aspect(1)  # the same height as the planes
    right.set_box_aspect(1)
    axes.set_ylabel(f"{solution.loss} loss", color=colour)
    right.set_ylabel(solution.metric_axis, color=GREY)
    axes.legend(fontsize=8, loc="upper center")
    axes.grid(alpha=0.3)
    axes.set_title("Along the two directions", fontsize=10)
