"""Explanation `barrier`: the loss along straight lines between solutions of one network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from losslab.analysis.explain.figures import figures_folder, save_figure, write_csv
from losslab.analysis.explain.forward_passes import ForwardPasses, Weights, show_progress
from losslab.analysis.explain.options import DEFAULTS, LandscapeOptions
from losslab.analysis.explain.select_runs import settings
from losslab.analysis.explain.solution import Solution, corruption_differs, load_batches, load_solutions
from losslab.errors import LabError
from losslab.io.conf_groups import CORRUPTIONS
from losslab.io.figures import line_styles, new_figure
from losslab.runs import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[np.float64]]
_SAME_DATA = {"data.batch_size", "data.eval_batch_size", "data.seed", "imbalance.seed", "noise.seed"}
"""Settings that may differ between runs on the same data; other seeds draw the same corruption again."""


def explain(runs: Sequence[RunFolder], output: Path | None, options: LandscapeOptions = DEFAULTS) -> list[Path]:
    """Draw barrier.png, with its numbers in barrier.csv → the path of the figure.

    Each pair of solutions is scored under the loss of either, and under the common metric. BatchNorm's statistics are
    recomputed at every point, the ends included, so that only the weights matter. The examples are those of the first
    run.

    Raises:
        LabError: there is only one run, or the runs have different networks or data.
    """
    if len(runs) < 2:
        raise LabError("a line needs two ends: name two or more runs of one network")
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
    with show_progress("barrier", [(each, options.points) for *_, each in planned]):
        lines = [interpolate(*each, options.points) for each in planned]
    note = f"{of_first.examples:,} {options.split_name} examples, unaugmented"
    if corruption_differs(runs):
        note += f", with the noise and the imbalance that {solutions[0].label} learnt from"
    if of_first.has_batch_norm:
        note += "; BatchNorm's statistics are recomputed from them at every point"
    rows = [row for line in lines for row in line.rows(solutions)]
    write_csv(folder / "barrier.csv", ["first", "second", "loss_of", "share", "loss", "metric"], rows)
    return [save_figure(draw(lines, note), "barrier", runs, output, findings(lines))]


@dataclass(frozen=True)
class Line:
    """Scores on the straight line from one solution to another."""

    first: Solution
    second: Solution
    loss_of: Solution
    """The first or the second, whose loss and metric scored the line."""
    share: Array
    """Share of the second solution in the weights (L,), from 0 to 1."""
    scores: Array
    """Loss and metric (L, 2)."""

    @property
    def name(self) -> str:
        """The labels of both ends."""
        return f"{self.first.label} – {self.second.label}"

    def rows(self, solutions: Sequence[Solution]) -> Iterator[tuple[float, ...]]:
        """Rows of the CSV file: the solutions' numbers, the share of the second, loss and metric."""
        numbers = [solutions.index(end) for end in (self.first, self.second, self.loss_of)]
        for share, score in zip(self.share, self.scores, strict=True):
            yield (*numbers, share, *score)

    @property
    def barriers(self) -> tuple[float, float]:
        """How far loss and metric rise above the straight line between their values at both ends, 0 if they do not.

        Entezari et al., "The role of permutation invariance in linear mode connectivity", 2022, definition 2.1.
        """
        share = self.share[:, None]
        rise = (self.scores - (1 - share) * self.scores[0] - share * self.scores[-1]).max(0)
        return float(rise[0]), float(rise[1])

    @property
    def metric_barrier(self) -> str:
        """The barrier of the metric in words."""
        regression = f"{self.barriers[1]:.3g} of mean squared error"
        return regression if self.loss_of.is_regression else f"{100 * self.barriers[1]:.1f} points of error rate"


def interpolate(first: Solution, second: Solution, passes: ForwardPasses, points: int) -> Line:
    """Score the line between two solutions at this many points, both ends included, under the loss of `passes`."""
    start, stop = first.weights, second.weights
    shapes = [{name: value.shape for name, value in end.items()} for end in (start, stop)]
    if first.config["loss"] != second.config["loss"] or shapes[0] != shapes[1]:  # each loss keeps its own parameters
        start, stop = ({name: end[name] for name in end if name.startswith("network.")} for end in (start, stop))
    share = np.linspace(0, 1, points)
    scores = [passes.score(mix_weights(start, stop, float(each))) for each in share]
    return Line(first, second, passes.solution, share, np.array(scores))


def mix_weights(start: Mapping[str, Any], stop: Mapping[str, Any], share: float) -> Weights:
    """(1 - share) of one set of weights and `share` of the other; exact at both ends."""
    return {name: value.lerp(stop[name], share) for name, value in start.items()}


def check_compatible(solutions: Sequence[Solution]) -> None:
    """Check that all solutions are of one network and learnt from the same data.

    Raises:
        LabError: two have different networks or data.
    """
    shapes = [{n: tuple(v.shape) for n, v in each.learner.network.named_parameters()} for each in solutions]
    data = [dict(settings(each.config, ("data", *CORRUPTIONS))) for each in solutions]
    for each, own_shapes, own_data in zip(solutions, shapes, data, strict=True):
        both = f"{solutions[0].folder.path} and {each.folder.path}"
        if own_shapes != shapes[0]:
            raise LabError(f"{both} have different networks: no line connects their weights")
        differ = [key for key in own_data if own_data[key] != data[0].get(key)]
        differ += [key for key in data[0] if key not in own_data]
        differ = [key for key in differ if key not in _SAME_DATA]
        if differ:
            raise LabError(f"{both} learnt from different data: {differ[0]} differs")


def draw(lines: Sequence[Line], note: str) -> "Figure":
    """Draw a panel for each loss in its own units, and one for the metric, which all lines share."""
    by_loss: dict[str, list[Line]] = {}
    for line in lines:
        by_loss.setdefault(line.loss_of.loss, []).append(line)
    pairs = {line.name: line for line in reversed(lines)}  # the first line of a pair that is scored by two losses
    styles = {name: style | {"linewidth": 1.8} for name, style in zip(reversed(pairs), line_styles(), strict=False)}
    columns = len(by_loss) + 1 if len(by_loss) < 4 else -(-(len(by_loss) + 1) // 2)
    rows = -(-(len(by_loss) + 1) // columns)
    figure = new_figure(5.2 * columns, 3.9 * rows + 0.5 + 0.22 * len(pairs), dpi=120)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    panels, metric_axes = grid[: len(by_loss)], grid[len(by_loss)]
    for axes in grid[len(by_loss) + 1 :]:
        axes.set_visible(False)
    for axes, (loss, own) in zip(panels, by_loss.items(), strict=True):
        for line in own:
            axes.plot(line.share, line.scores[:, 0], **styles[line.name])
        _label(axes, f"{loss} loss", f"{loss}: {_range_in_words([line.barriers[0] for line in own], '{:.2g}')}")
    solution = lines[0].loss_of
    scale = solution.metric_scale
    for name, style in styles.items():
        line = pairs[name]
        metric_axes.plot(line.share, scale * line.scores[:, 1], label=f"{name}: barrier {line.metric_barrier}", **style)
    heights = [scale * line.barriers[1] for line in pairs.values()]
    form = "{:.3g}" if solution.is_regression else "{:.1f} points"
    _label(metric_axes, solution.metric_axis, f"{solution.metric_name}: {_range_in_words(heights, form)}")
    figure.legend(loc="outside lower center", fontsize=8, ncols=2 if len(pairs) > 2 else 1)
    figure.suptitle(note, fontsize=8)
    return figure


def findings(lines: Sequence[Line]) -> list[str]:
    """The barrier of the one line, or the lowest and the highest barrier of several, a sentence each."""
    ordered = sorted(lines, key=lambda line: line.barriers[1])
    ends = ordered if len(ordered) == 1 else [ordered[0], ordered[-1]]
    sentences = [
        f"{line.name}: {line.barriers[0]:.2g} of {line.loss_of.loss} loss, {line.metric_barrier}" for line in ends
    ]
    if len(ordered) > 2:
        sentences.append(f"the lowest and the highest of {len(ordered)}: all are in barrier.csv")
    return sentences


def _label(axes: "Axes", unit: str, title: str) -> None:
    axes.set(xlabel="share of the second solution in the weights", ylabel=unit)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)


def _range_in_words(heights: Sequence[float], form: str) -> str:
    low, high = (form.format(height) for height in (min(heights), max(heights)))
    return f"barrier of {high}" if low == high else f"barriers of {low} to {high}"
