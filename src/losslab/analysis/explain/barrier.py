"""Explanation `barrier`: loss and metric on the straight line between the trained weights of each pair of runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losslab.analysis.explain import DEFAULTS, SPLITS, LandscapeOptions
from losslab.analysis.explain.figures import Array, figures_folder, save_figure, write_csv
from losslab.analysis.explain.forward_passes import ForwardPasses, Weights, show_progress
from losslab.analysis.explain.select_runs import settings
from losslab.analysis.explain.solution import Solution, corruption_differs, load_batches, load_solutions
from losslab.errors import LabError
from losslab.io.conf_groups import CORRUPTIONS
from losslab.io.figures import colour_ticks, loss_colour, new_figure
from losslab.runs import RunFolder

_SAME_DATA = {"data.batch_size", "data.eval_batch_size", "data.seed", "imbalance.seed", "noise.seed"}
"""Settings of the data that may differ between the runs. Seeds of a corruption only change its random draws."""


def explain(runs: Sequence[RunFolder], output: Path | None, options: LandscapeOptions = DEFAULTS) -> list[Path]:
    """Draw barrier.png, write its numbers to barrier.csv, and return the path of the figure.

    Each point of the line between two runs is scored with the loss of each of the two and with the metric, which is the
    same for all runs, on examples of the first run. The BatchNorm statistics are recomputed at every point, also at
    both ends, so that scores depend only on the weights.

    Raises:
        LabError: there is only one run, or the runs have different networks or data.
    """
    if len(runs) < 2:
        raise LabError("a single run has no barrier: name two or more runs of one network")
    folder = figures_folder(runs, output)
    solutions = load_solutions(runs, options.ckpt)
    check_compatible(solutions)
    batches = load_batches(solutions[0], options.split, options.examples, options.seed)
    passes = {each.label: ForwardPasses(each, batches, recompute=True) for each in solutions}
    of_first = passes[solutions[0].label]
    planned = [
        (first, second, passes[loss_of.label])
        for first, second in combinations(solutions, 2)
        for loss_of in ((first,) if first.config["loss"] == second.config["loss"] else (first, second))
    ]
    with show_progress("barrier", [each for *_, each in planned], options.points):
        lines = [interpolate(*each, options.points) for each in planned]
    note = f"{of_first.examples:,} {SPLITS[options.split]} examples, unaugmented"
    if corruption_differs(runs):
        note += f", with the noise and the imbalance of {solutions[0].label}"
    if of_first.has_batch_norm:
        note += "; BatchNorm statistics are recomputed from these at every point"
    rows = [row for line in lines for row in line.rows(solutions)]
    write_csv(folder / "barrier.csv", ["first", "second", "loss_of", "share", "loss", "metric"], rows)
    return [save_figure(draw(lines, note), "barrier", runs, output, findings(lines))]


@dataclass(frozen=True)
class Line:
    """Scores on the straight line between the weights of two solutions."""

    first: Solution
    second: Solution
    loss_of: Solution
    """The solution, either the first or the second, whose loss is computed on the line."""
    share: Array
    """The positions on the line (L,): the share of the second solution in the weights, from 0 to 1."""
    scores: Array
    """Loss and metric at each position (L, 2)."""

    @property
    def name(self) -> str:
        """The labels of both solutions."""
        return f"{self.first.label} – {self.second.label}"

    def rows(self, solutions: Sequence[Solution]) -> Iterator[tuple[float, ...]]:
        """Yield the rows of barrier.csv. They contain the indices of the solutions in `solutions`, not their labels."""
        numbers = [solutions.index(end) for end in (self.first, self.second, self.loss_of)]
        for share, score in zip(self.share, self.scores, strict=True):
            yield (*numbers, share, *score)

    @property
    def barriers(self) -> tuple[float, float]:
        """Barriers of loss and metric: the largest rise above the linear interpolation of both ends, at least 0.

        Entezari et al., "The role of permutation invariance in linear mode connectivity", 2022, definition 2.1.
        """
        share = self.share[:, None]
        rise = (self.scores - (1 - share) * self.scores[0] - share * self.scores[-1]).max(0)
        return float(rise[0]), float(rise[1])

    @property
    def metric_barrier(self) -> str:
        """The barrier of the metric with its unit."""
        regression = f"{self.barriers[1]:.3g} in mean squared error"
        return regression if self.loss_of.is_regression else f"{100 * self.barriers[1]:.1f} points in error rate"


def interpolate(first: Solution, second: Solution, passes: ForwardPasses, points: int) -> Line:
    """Compute the loss of `passes` and the metric at `points` points from one solution to the other."""
    start, stop = first.weights, second.weights
    shapes = [{name: value.shape for name, value in end.items()} for end in (start, stop)]
    if (
        first.config["loss"] != second.config["loss"] or shapes[0] != shapes[1]
    ):  # the parameters of the loss are not mixed
        start, stop = ({name: end[name] for name in end if name.startswith("network.")} for end in (start, stop))
    share = np.linspace(0, 1, points)
    scores = [passes.score(mix_weights(start, stop, float(each))) for each in share]
    return Line(first, second, passes.solution, share, np.array(scores))


def mix_weights(start: Mapping[str, Any], stop: Mapping[str, Any], share: float) -> Weights:
    """Interpolate linearly between two sets of weights. Shares 0 and 1 return `start` and `stop` exactly."""
    return {name: value.lerp(stop[name], share) for name, value in start.items()}


def check_compatible(solutions: Sequence[Solution]) -> None:
    """Check that all solutions have the same network and were trained on the same data.

    Raises:
        LabError: the network or the data of a solution differ from those of the first.
    """
    shapes = [{n: tuple(v.shape) for n, v in each.learner.network.named_parameters()} for each in solutions]
    data = [settings(each.config, ("data", *CORRUPTIONS)) for each in solutions]
    for each, own_shapes, own_data in zip(solutions, shapes, data, strict=True):
        both = f"{solutions[0].folder.path} and {each.folder.path}"
        if own_shapes != shapes[0]:
            raise LabError(f"{both} have different networks: name runs of one network")
        for key in own_data | data[0]:
            if key not in _SAME_DATA and own_data.get(key) != data[0].get(key):
                raise LabError(f"{both} were trained on different data: {key} differs")


def draw(lines: Sequence[Line], note: str) -> Figure:
    """Draw matrices of the barriers between several runs, or for two runs the values on the line between them."""
    solutions = [*{end.label: end for line in lines for end in (line.first, line.second)}.values()]
    if len(solutions) == 2:
        figure = _draw_curves(lines)
    else:
        figure = _draw_matrices(lines, solutions)
        note += "; shades: barrier ÷ range of the values on all lines"
    figure.suptitle(fill(_title(lines), int(10 * figure.get_figwidth())), fontsize="medium", fontweight="bold")
    figure.supxlabel(note, fontsize=8)
    return figure


def _title(lines: Sequence[Line]) -> str:
    """Describe the highest barrier of the metric, and the lowest if there are several pairs of runs."""
    ordered = sorted(lines, key=lambda line: line.barriers[1])
    low, high = ordered[0], ordered[-1]
    ends = f"between {high.first.label} and {high.second.label}"
    if low.name == high.name:
        return f"The barrier {ends} is {high.metric_barrier}"
    lowest = f"the lowest, {low.metric_barrier.partition(' ')[0]}, between {low.first.label} and {low.second.label}"
    return f"The highest barrier, {high.metric_barrier}, is {ends}; {lowest}"


def _draw_matrices(lines: Sequence[Line], solutions: Sequence[Solution]) -> Figure:
    """Draw the barriers of the metric and, in the loss of the run of each column, the barriers of the loss.

    The shade of a barrier is its share of the range of the values on all lines.
    """
    metric, loss = barrier_matrices(lines, solutions)
    order = _neighbours(metric)
    labels, first = [solutions[index].label for index in order], solutions[0]
    metric, loss = (values[np.ix_(order, order)] for values in (metric, loss))
    longest, count = max(map(len, labels)), len(labels)
    figure = new_figure(2 + 0.06 * longest + 1.2 * count, 1.7 + 0.045 * longest + 0.36 * count, dpi=120)
    left, right = figure.subplots(1, 2, sharey=True)
    percent = "" if first.is_regression else " (percentage points)"
    metric_range = first.metric_scale * np.ptp([line.scores[:, 1] for line in lines])
    _draw_matrix(left, metric, metric_range, labels, "{:.3g}" if first.is_regression else "{:.1f}")
    left.set_title(f"barrier of the {first.metric_name}{percent}", fontsize="small", loc="left")
    losses = [solutions[index].config["loss"] for index in order]
    scores = [[line.scores[:, 0] for line in lines if line.loss_of.config["loss"] == each] for each in losses]
    _draw_matrix(right, loss, np.array([np.ptp(each) for each in scores]), labels, "{:.2g}")
    right.set_title("barrier of the loss of each column", fontsize="small", loc="left")
    figure.get_layout_engine().set(wspace=0.04)  # type: ignore[union-attr, call-arg]
    return figure


def barrier_matrices(lines: Sequence[Line], solutions: Sequence[Solution]) -> tuple[Array, Array]:
    """Return the barriers (R, R) of the metric between all runs, and those of the loss of the run of each column.

    The diagonals are NaN. The metric is multiplied by its scale.
    """
    metric, loss = np.full((2, len(solutions), len(solutions)), np.nan)
    for line in lines:
        ends = solutions.index(line.first), solutions.index(line.second)
        metric[ends] = metric[ends[::-1]] = line.loss_of.metric_scale * line.barriers[1]
        one_loss = line.first.config["loss"] == line.second.config["loss"]
        for row, column in (ends, ends[::-1]):
            if one_loss or line.loss_of is solutions[column]:
                loss[row, column] = line.barriers[0]
    return metric, loss


def _neighbours(barriers: Array) -> list[int]:
    """Return an order of the runs in which runs with low barriers (R, R) between them are neighbours."""
    from scipy.cluster import hierarchy  # noqa: PLC0415 -- slow to import
    from scipy.spatial.distance import squareform  # noqa: PLC0415

    distances = squareform(np.nan_to_num(barriers, posinf=1e100), checks=False)
    order: list[int] = hierarchy.leaves_list(hierarchy.linkage(distances, "average", optimal_ordering=True)).tolist()
    return order


def _draw_matrix(axes: Axes, barriers: Array, value_range: Any, labels: Sequence[str], form: str) -> None:
    """Draw barriers (R, R) as numbers and, as shares of a range of values () or that of each column (R,), as shades."""
    shades = np.divide(barriers, value_range, out=np.zeros_like(barriers), where=value_range > 0)
    axes.imshow(np.where(np.isnan(barriers), np.nan, shades), cmap="cividis_r", vmin=0, vmax=1, aspect="auto")
    for row, column in zip(*np.nonzero(~np.isnan(barriers)), strict=True):
        colour = "white" if shades[row, column] > 0.55 else "black"
        text = form.format(barriers[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize="x-small", color=colour)
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="left", rotation_mode="anchor", fontsize="small")
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    axes.xaxis.tick_top()
    colour_ticks(axes.xaxis, labels)
    colour_ticks(axes.yaxis, labels)
    axes.spines[:].set_visible(False)


def _draw_curves(lines: Sequence[Line]) -> Figure:
    """Draw a panel with the values of each loss on the line between two runs, and a panel with the metric."""
    figure = new_figure(4.6 * (len(lines) + 1), 4.1, dpi=120)
    *panels, metric_axes = figure.subplots(1, len(lines) + 1)
    for axes, line in zip(panels, lines, strict=True):
        axes.plot(line.share, line.scores[:, 0], linewidth=1.8, color=loss_colour(line.loss_of.loss))
        _label(axes, line, f"{line.loss_of.loss} loss", f"{line.loss_of.loss}: barrier of {line.barriers[0]:.2g}")
    solution = lines[0].loss_of
    metric_axes.plot(lines[0].share, solution.metric_scale * lines[0].scores[:, 1], linewidth=1.8, color="black")
    _label(metric_axes, lines[0], solution.metric_axis, f"barrier of {lines[0].metric_barrier}")
    return figure


def findings(lines: Sequence[Line]) -> list[str]:
    """Describe the barrier of a single line, or the lowest and the highest barrier of several, in a sentence each."""
    ordered = sorted(lines, key=lambda line: line.barriers[1])
    ends = ordered if len(ordered) == 1 else [ordered[0], ordered[-1]]
    sentences = [
        f"{end.name}: barrier of {end.barriers[0]:.2g} in {end.loss_of.loss} loss, {end.metric_barrier}" for end in ends
    ]
    if len(ordered) > 2:
        sentences.append(f"these are the lowest and the highest of {len(ordered)} barriers; barrier.csv contains all")
    return sentences


def _label(axes: Axes, line: Line, unit: str, title: str) -> None:
    axes.set(xlabel=f"share of {line.second.label} in the weights", ylabel=unit)
    axes.set_title(title, fontsize="small", loc="left")
    axes.grid(alpha=0.3)
