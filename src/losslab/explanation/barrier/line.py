"""The straight line between the weights of two solutions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from losslab.errors import LabError
from losslab.explanation.labels import settings
from losslab.explanation.landscape.directions import Weights
from losslab.explanation.landscape.passes import Passes
from losslab.explanation.solution import Solution

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
    groups = ("data", "imbalance", "noise")
    data = [{key: value for key, value in settings(each.config, groups) if _matters(key)} for each in found]
    for each, own, read in zip(found, shapes, data, strict=True):
        if own != shapes[0]:
            message = (
                f"{first.folder.path} and {each.folder.path} are of different networks: no line joins their weights"
            )
            raise LabError(message)
        differ = [key for key in read if read[key] != data[0].get(key)] or [key for key in data[0] if key not in read]
        if differ:
            message = f"{first.folder.path} and {each.folder.path} learnt from different data: {differ[0]} differs"
            raise LabError(message)


def _matters(key: str) -> bool:
    """Whether runs that differ in this learnt from different data; other seeds draw the same faults anew."""
    return key not in {"data.batch_size", "data.eval_batch_size", "data.seed", "imbalance.seed", "noise.seed"}
