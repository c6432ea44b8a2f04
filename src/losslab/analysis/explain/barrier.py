"""Solutions of one network: the loss along the straight lines between them.

The line between solutions: whether they lie in one valley.

The straight line between the weights of two solutions.

The figure of lines between solutions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from losslab.analysis.explain.landscape import explaining as landscape
from losslab.analysis.explain.landscape.forward_passes import Passes, Weights
from losslab.analysis.explain.options import USUAL, Sight
from losslab.analysis.explain.select_runs import settings
from losslab.analysis.explain.solution import Solution
from losslab.errors import LabError
from losslab.io.conf_groups import CORRUPTIONS
from losslab.io.figures import line_styles
from losslab.runs import RunFolder
from losslab.targets import Task


def applies(config: dict[str, Any]) -> bool:
    """Whether a run trained a network of layers: between linear models there is nothing to cross."""
    return landscape.applies(config)


def explain(runs: Sequence[RunFolder], output: Path | None, sight: Sight = USUAL) -> list[Path]:
    """Draw barrier.png, with its numbers in barrier.csv → the path of the figure.

    Each pair of solutions is scored under the loss of either, and under one metric. BatchNorm's statistics are taken
    anew everywhere on the line, its ends included, so that what is seen is the weights.

    Args:
        runs: two or more of one network and the same data. The examples are those of the first.
        output: a folder for the figure.
        sight: what they are looked at with.

    Raises:
        LabError: there is one run only, or they are of different networks or data.
    """
    from losslab.analysis.explain import figures  # noqa: PLC0415
    from losslab.analysis.explain.landscape.forward_passes import Passes, counted  # noqa: PLC0415
    from losslab.analysis.explain.solution import batches, solutions  # noqa: PLC0415

    if len(runs) < 2:
        raise LabError("a line needs two ends: name two or more runs of one network")
    folder = figures.place(runs, output)
    found = solutions(runs, sight.ckpt)
    check(found)
    seen = batches(found[0], sight.split, sight.examples, sight.seed)
    passes = {each.label: Passes(each, seen, recompute=True) for each in found}
    wanted = [
        (first, second, under)
        for first, second in combinations(found, 2)
        for under in ((first,) if first.config["loss"] == second.config["loss"] else (first, second))
    ]
    with counted("barrier", [(passes[under.label], sight.points) for *_, under in wanted]) as done:
        lines = [between(*three, passes[three[2].label], sight.points, done) for three in wanted]
    first = passes[found[0].label]
    note = f"{first.examples:,} {sight.words} examples, unaugmented"
    if landscape.drawn_apart(runs):
        note += f", with the noise and the imbalance that {found[0].label} learnt from"
    if first.normalised:
        note += "; BatchNorm's statistics are taken anew from them at every point"
    rows = [row for each in lines for row in each.rows(found)]
    figures.table(folder / "barrier.csv", ["first", "second", "loss_of", "share", "loss", "metric"], rows)
    return [figures.keep(draw(lines, note), "barrier", runs, output, findings(lines))]


Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Line:
    """Scores on the way from one solution to another."""

    first: Solution
    second: Solution
    under: Solution
    """Whose loss and measures scored it: the first's or the second's."""
    share: Array
    """Of the second solution in the weights (L,), 0 to 1."""
    scores: Array
    """Loss and metric (L, 2)."""

    @property
    def name(self) -> str:
        """Both ends."""
        return f"{self.first.label} – {self.second.label}"

    def rows(self, order: Sequence[Solution]) -> Iterator[tuple[float, ...]]:
        """The runs' numbers in their order, the share of the second, loss and metric."""
        numbers = [
            next(n for n, each in enumerate(order) if each is end) for end in (self.first, self.second, self.under)
        ]
        for share, score in zip(self.share, self.scores, strict=True):
            yield (*numbers, share, *score)

    @property
    def barriers(self) -> tuple[float, float]:
        """How far loss and metric rise above the straight line between their values at both ends; 0 if they do not.

        Entezari et al., "The role of permutation invariance in linear mode connectivity", 2022, definition 2.1.
        """
        share = self.share[:, None]
        rise = (self.scores - (1 - share) * self.scores[0] - share * self.scores[-1]).max(0)
        return float(rise[0]), float(rise[1])


def between(
    first: Solution, second: Solution, under: Solution, passes: Passes, points: int, done: Callable[[], object]
) -> Line:
    """Score `points` places on the line from the first solution to the second.

    Args:
        first: one end.
        second: the other end, of the same network.
        under: the one of the two whose loss scores it.
        passes: of `under`.
        points: both ends among them.
        done: called after each pass.
    """
    start, stop = (_weights(solution) for solution in (first, second))
    if _learnt_losses_differ(first, second):
        start, stop = ({name: ends[name] for name in ends if name.startswith("network.")} for ends in (start, stop))
    share = np.linspace(0, 1, points)
    scores = []
    for part in share:
        scores.append(passes.at(mixed(start, stop, float(part))))
        done()
    return Line(first, second, under, share, np.array(scores))


def mixed(start: Mapping[str, Any], stop: Mapping[str, Any], share: float) -> Weights:
    """(1 - share) of one set of weights and `share` of the other; the ends are exactly themselves."""
    return {name: value.lerp(stop[name], share) for name, value in start.items()}


def _weights(solution: Solution) -> Weights:
    learner = solution.learner
    named = {"network": learner.network, "loss": learner.loss}
    return {
        f"{part}.{name}": value.detach() for part, module in named.items() for name, value in module.named_parameters()
    }


def _learnt_losses_differ(first: Solution, second: Solution) -> bool:
    """Whether the losses do not share what they learn: each then keeps its own all along the line."""
    ours, theirs = (
        {name: value.shape for name, value in solution.learner.loss.named_parameters()} for solution in (first, second)
    )
    return ours != theirs or first.config["loss"] != second.config["loss"]


def check(found: Sequence[Solution]) -> None:
    """Refuse solutions that no line can join.

    Raises:
        LabError: two are of different networks or data.
    """
    first = found[0]
    shapes = [{n: tuple(v.shape) for n, v in each.learner.network.named_parameters()} for each in found]
    groups = ("data", *CORRUPTIONS)
    data = [{key: value for key, value in settings(each.config, groups) if _matters(key)} for each in found]
    for each, own, read in zip(found, shapes, data, strict=True):
        if own != shapes[0]:
            raise LabError(
                f"{first.folder.path} and {each.folder.path} are of different networks: no line joins their weights"
            )
        differ = [key for key in read if read[key] != data[0].get(key)] or [key for key in data[0] if key not in read]
        if differ:
            raise LabError(
                f"{first.folder.path} and {each.folder.path} learnt from different data: {differ[0]} differs"
            )


def _matters(key: str) -> bool:
    """Whether runs that differ in this learnt from different data; other seeds draw the same faults anew."""
    return key not in {"data.batch_size", "data.eval_batch_size", "data.seed", "imbalance.seed", "noise.seed"}


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(lines: Sequence[Line], note: str) -> "Figure":
    """A panel for each loss in its own units, and one for the metric, which is the same for all."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.under.loss, []).append(line)
    pairs = {line.name: line for line in reversed(lines)}  # of a pair under two losses, the first
    styles = {name: look | {"linewidth": 1.8} for name, look in zip(reversed(pairs), line_styles(), strict=False)}
    beside = len(groups) + 1 if len(groups) < 4 else -(-(len(groups) + 1) // 2)
    above = -(-(len(groups) + 1) // beside)
    figure = Figure(figsize=(5.2 * beside, 3.9 * above + 0.5 + 0.22 * len(pairs)), dpi=120, layout="constrained")
    grid = figure.subplots(above, beside, squeeze=False).ravel()
    panels, common = grid[: len(groups)], grid[len(groups)]
    for axes in grid[len(groups) + 1 :]:
        axes.set_visible(False)
    for axes, (loss, own) in zip(panels, groups.items(), strict=True):
        for line in own:
            axes.plot(line.share, line.scores[:, 0], **styles[line.name])
        _finish(axes, f"{loss} loss", f"{loss}: {_said([line.barriers[0] for line in own], '{:.2g}')}")
    scale = 1 if _of_values(lines) else 100
    for name, look in styles.items():
        line = pairs[name]
        common.plot(line.share, scale * line.scores[:, 1], label=f"{name}: barrier {_metric(line)}", **look)
    heights = [scale * line.barriers[1] for line in pairs.values()]
    words = ("mean squared error", "{:.3g}") if _of_values(lines) else ("error rate", "{:.1f} points")
    _finish(common, words[0] + ("" if _of_values(lines) else " (%)"), f"{words[0]}: {_said(heights, words[1])}")
    figure.legend(loc="outside lower center", fontsize=8, ncols=2 if len(pairs) > 2 else 1)
    figure.suptitle(note, fontsize=8)
    return figure


def findings(lines: Sequence[Line]) -> list[str]:
    """The barrier of the pair, or the lowest and the highest of several, a line each, and of how many these are."""
    ordered = sorted(lines, key=lambda line: line.barriers[1])
    ends = ordered if len(ordered) == 1 else [ordered[0], ordered[-1]]
    said = [f"{line.name}: {line.barriers[0]:.2g} of {line.under.loss} loss, {_metric(line)}" for line in ends]
    return said + (
        [f"the lowest and the highest of {len(ordered)}: all are in barrier.csv"] if len(ordered) > 2 else []
    )


def _finish(axes: "Axes", unit: str, title: str) -> None:
    axes.set(xlabel="share of the second solution in the weights", ylabel=unit)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)


def _said(heights: Sequence[float], form: str) -> str:
    low, high = (form.format(height) for height in (min(heights), max(heights)))
    return f"barrier of {high}" if low == high else f"barriers of {low} to {high}"


def _metric(line: Line) -> str:
    height = line.barriers[1]
    return f"{height:.3g} of mean squared error" if _of_values([line]) else f"{100 * height:.1f} points of error rate"


def _of_values(lines: Sequence[Line]) -> bool:
    return lines[0].under.learner.facts.task is Task.REGRESSION
