"""Where the loss of a linear model is lowest, whatever training made of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from losslab.explanation.linear.problem import Problem, Vector

_FLAT = 1e-6
"""A slope, relative to the loss's own size, that is none."""
_FAR = 1e6
"""A weight beyond reach."""
_SEEN = 1e-12
"""A change of the loss, relative to all that it fell, that is more than rounding."""
_SMOOTH = 1e-9
"""The first change of a loss that has left a plateau by an edge is larger."""


@dataclass(frozen=True)
class Minimum:
    """The lowest place that was found."""

    weights: Vector
    """θ (P,)."""
    loss: float
    reached: bool
    """Whether it is a minimum: the slope is 0 there, or nothing is lower as far as a convex loss allows."""


def lowest(problem: Problem, starts: Sequence[Vector]) -> Minimum:
    """The lowest minimum that is found from these starts.

    Smooth losses are followed by BFGS down to a slope of 0. Of those with edges (L1, the pinball loss) that ends near
    an edge and not on it; from there on cutting planes go, which end exactly there. A loss that only ever falls with
    distance (of classes that can be told apart without a mistake) has none, however flat it is where the search ends.
    """
    from scipy.optimize import minimize  # noqa: PLC0415

    found = []
    with np.errstate(all="ignore"):  # what overflows on the way is no minimum
        for start in starts:
            end = minimize(problem.loss, start, jac=problem.gradient, method="BFGS", options={"gtol": 1e-10})
            found.append(Minimum(end.x, float(end.fun), _flat(problem, end.x)))
        best = min(found, key=lambda place: place.loss)
        if not np.abs(best.weights).max() < _FAR or _falls_on(problem, best):  # so far the loss has only fallen
            return replace(best, reached=False)
        return best if best.reached else _cut(problem, best)


def _flat(problem: Problem, weights: Vector) -> bool:
    scale = max(1.0, abs(problem.loss(weights)))
    return bool(np.linalg.norm(problem.gradient(weights)) <= _FLAT * scale)


def _falls_on(problem: Problem, end: Minimum) -> bool:
    """Whether the loss goes on falling away from 0 behind the end of a search, or did until rounding hid it."""
    fallen = problem.loss(np.zeros_like(end.weights)) - end.loss
    if not fallen > 0:
        return False
    beyond = problem.loss(2 * end.weights) - end.loss
    if not abs(beyond) <= _SEEN * fallen:
        return bool(beyond < 0)
    # Level from here on: a plateau begins at an edge, and what rounding hid fades in without one.
    back = (problem.loss(0.9**step * end.weights) - end.loss for step in range(1, 100))
    first = next((rise for rise in back if abs(rise) > _SEEN * fallen), np.inf)
    return bool(0 < first < _SMOOTH * fallen)


def _cut(problem: Problem, start: Minimum, cuts: int = 500) -> Minimum:
    """Follow the lower bound that the tangents so far give to a convex loss, within a box around the best place.

    Kelley's cutting planes (1960) alone need thousands of tangents in ten dimensions; the box of Marsten, Hogan and
    Blankenship, "The Boxstep method for large-scale optimization", 1975, keeps them where they are of use.
    """
    from scipy.optimize import linprog  # noqa: PLC0415

    best, room = start, 1.0
    size = len(start.weights)
    tangents = [(start.loss, problem.gradient(start.weights), start.weights)]
    for _ in range(cuts):
        # Variables are the place and the bound above `best`, in units of the box: the solver's tolerance is absolute.
        slopes = np.array([[*slope, -1.0] for _, slope, _ in tangents])
        heights = np.array([(best.loss - loss - slope @ (best.weights - at)) / room for loss, slope, at in tangents])
        solved = linprog(np.eye(size + 1)[size], A_ub=slopes, b_ub=heights, bounds=[*[(-1, 1)] * size, (None, None)])
        if solved.x is None:
            return best
        promised, edge = -solved.fun * room, np.abs(solved.x[:size]).max() > 1 - 1e-6
        tolerance = 1e-10 * max(1.0, abs(best.loss))
        if promised < -tolerance:  # the tangents are above the loss: it is not convex
            return best
        if promised <= tolerance:
            if not edge or room >= 1:
                return Minimum(best.weights, best.loss, reached=True)
            room *= 10
            continue
        at = best.weights + room * solved.x[:size]
        loss, slope = problem.loss(at), problem.gradient(at)
        tangents.append((loss, slope, at))
        kept = best.loss - loss >= 0.1 * promised
        if loss < best.loss:
            best = Minimum(at, loss, reached=False)
        if not kept:
            room /= 2
        elif edge:
            room *= 2
    return best
