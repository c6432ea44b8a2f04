"""Where the loss of a linear model is lowest, whatever training made of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from losslab.explanation.linear.problem import Problem, Vector

_FLAT = 1e-6
"""A slope, relative to the loss's own size, that is none."""


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
    an edge and not on it; from there on cutting planes go, which end exactly there (Kelley 1960).
    """
    from scipy.optimize import minimize  # noqa: PLC0415

    found = []
    with np.errstate(all="ignore"):  # what overflows on the way is no minimum
        for start in starts:
            end = minimize(problem.loss, start, jac=problem.gradient, method="BFGS", options={"gtol": 1e-10})
            found.append(Minimum(end.x, float(end.fun), _flat(problem, end.x)))
        best = min(found, key=lambda place: place.loss)
        return best if best.reached else _cut(problem, best)


def _flat(problem: Problem, weights: Vector) -> bool:
    scale = max(1.0, abs(problem.loss(weights)))
    return bool(np.linalg.norm(problem.gradient(weights)) <= _FLAT * scale)


def _cut(problem: Problem, start: Minimum, cuts: int = 500) -> Minimum:
    """Kelley's method: the tangents so far bound a convex loss from below; go where their maximum is lowest."""
    from scipy.optimize import linprog  # noqa: PLC0415

    best, room = start, 1.0 + np.abs(start.weights).max()
    tangents: list[Vector] = []
    at = start.weights
    size = len(at)
    for _ in range(cuts):
        loss, slope = problem.loss(at), problem.gradient(at)
        if loss < best.loss:
            best = Minimum(at, loss, reached=False)
        tangents.append(np.array([*slope, -1.0, slope @ at - loss]))
        rows = np.stack(tangents)
        # Variables are θ and the bound t: minimise t where every tangent lies below it.
        box = [(value - room, value + room) for value in start.weights]
        solved = linprog(np.eye(size + 1)[size], A_ub=rows[:, :-1], b_ub=rows[:, -1], bounds=[*box, (None, None)])
        if solved.x is None:
            return best
        at = solved.x[:size]
        if best.loss - solved.fun <= 1e-10 * max(1.0, abs(best.loss)):
            return Minimum(best.weights, best.loss, reached=True)
    return best
