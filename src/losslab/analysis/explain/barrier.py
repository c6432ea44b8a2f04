"""Explanation `barrier`: loss and metric on the straight line between the trained weights of each pair of runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
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
from losslab.io.figures import line_styles, new_figure
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
    """Draw a panel with the values of each loss, and a panel with the metric of all lines."""
    by_loss: dict[str, list[Line]] = {}
    pairs: dict[str, Line] = {}
    for line in lines:
        by_loss.setdefault(line.loss_of.loss, []).append(line)
        pairs.setdefault(line.name, line)  # a pair with two losses has two lines with the same metric
    styles = dict(zip(pairs, line_styles(), strict=False))
    count = len(by_loss) + 1
    columns = count if count < 5 else -(-count // 2)
    rows = -(-count // columns)
    figure = new_figure(5.2 * columns, 3.9 * rows + 0.5 + 0.22 * len(pairs), dpi=120)
    *panels, metric_axes = (figure.add_subplot(rows, columns, number) for number in range(1, count + 1))
    for axes, (loss, own) in zip(panels, by_loss.items(), strict=True):
        for line in own:
            axes.plot(line.share, line.scores[:, 0], linewidth=1.8, **styles[line.name])
        _label(axes, f"{loss} loss", f"{loss}: {_range_in_words([line.barriers[0] for line in own], '{:.2g}')}")
    solution = lines[0].loss_of
    scale = solution.metric_scale
    for name, line in pairs.items():
        label = f"{name}: barrier {line.metric_barrier}"
        metric_axes.plot(line.share, scale * line.scores[:, 1], linewidth=1.8, label=label, **styles[name])
    heights = [scale * line.barriers[1] for line in pairs.values()]
    form = "{:.3g}" if solution.is_regression else "{:.1f} points"
    _label(metric_axes, solution.metric_axis, f"{solution.metric_name}: {_range_in_words(heights, form)}")
    figure.legend(loc="outside lower center", fontsize=8, ncols=2 if len(pairs) > 2 else 1)
    figure.suptitle(note, fontsize=8)
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


def _label(axes: Axes, unit: str, title: str) -> None:
    axes.set(xlabel="share of the second run in the weights", ylabel=unit)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)


def _range_in_words(heights: Sequence[float], form: str) -> str:
    low, high = (form.format(height) for height in (min(heights), max(heights)))
    return f"barrier of {high}" if low == high else f"barriers of {low} to {high}"
