"""The plane around a solution: how loss and metric rise as its weights are disturbed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from losslab.analysis.explain.landscape.forward_passes import Passes, Score, Weights, filter_normalised
from losslab.analysis.explain.solution import Solution

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Landscape:
    """Scores around one solution. Distances are in lengths of the filters."""

    solution: Solution
    side: Array
    """Places along both axes of the plane (P,), from -1 to 1."""
    plane: Array
    """Loss and metric (P, P, 2); the first index is along the second direction."""
    reach: Array
    """Places along the lines (L,), from -1 to 1."""
    lines: Array
    """Loss and metric along the two directions (2, L, 2)."""

    @property
    def label(self) -> str:
        """What tells this run from the others."""
        return self.solution.label

    @property
    def centre(self) -> Score:
        """Of the solution itself."""
        return Score(*self.lines[0, len(self.reach) // 2])

    def rows(self, number: int) -> Iterator[tuple[float, ...]]:
        """All scores: the run's number, the place along both directions, loss and metric."""
        for y, row in zip(self.side, self.plane, strict=True):
            for x, score in zip(self.side, row, strict=True):
                yield (number, x, y, *score)
        for place, first, second in zip(self.reach[1::2], *self.lines[:, 1::2], strict=True):  # the others are above
            yield (number, place, 0.0, *first)
            yield (number, 0.0, place, *second)

    def around(self, distance: float) -> Score:
        """The mean of both lines, both ways, at about this distance."""
        near = np.isclose(np.abs(self.reach), self.reach[np.abs(self.reach - distance).argmin()])
        return Score(*self.lines[:, near].mean((0, 1)))


def passes_needed(points: int) -> int:
    """How many passes a landscape takes."""
    return points**2 + 2 * (2 * points - 1)


def survey(solution: Solution, passes: Passes, points: int, seed: int, done: Callable[[], object]) -> Landscape:
    """Score the plane of two filter-normalised random directions, and the two lines more finely.

    Args:
        solution: what to look around.
        passes: that score it.
        points: along each side of the plane.
        seed: of the directions.
        done: called after each pass.
    """
    weights = passes.weights
    network = {name: value for name, value in weights.items() if name.startswith("network.")}
    first, second = (_direction(solution, seed, number) for number in (0, 1))

    def score(x: float, y: float) -> Score:
        found = passes.at({n: w + x * first[n] + y * second[n] for n, w in network.items()})
        done()
        return found

    side, reach = np.linspace(-1, 1, points), np.linspace(-1, 1, 2 * points - 1)
    plane = np.array([[score(x, y) for x in side] for y in side])
    lines = np.array([[score(x, 0) for x in reach], [score(0, y) for y in reach]])
    return Landscape(solution, side, plane, reach, lines)


def _direction(solution: Solution, seed: int, number: int) -> Weights:
    random = torch.Generator().manual_seed(2 * seed + number)
    found = filter_normalised(solution.learner.network, random, solution.fixed)
    return {f"network.{name}": value for name, value in found.items()}
