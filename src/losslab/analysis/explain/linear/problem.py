"""What a linear model is asked to solve: its loss over all training examples, as a function of its weights alone.

Where the loss of a linear model is lowest, whatever training made of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from losslab.analysis.explain.solution import Solution, batches, encoded
from losslab.data.batch import Batch
from losslab.errors import LabError
from losslab.training.callbacks.weight_trajectory import element_names

Vector = np.ndarray[Any, np.dtype[np.float64]]

MOST_WEIGHTS = 100
"""Hessians of more are not for looking at."""

_CHUNK = 256


class Problem:
    """The loss of a run in float64, over weights θ (P,) in the order of the network's parameters.

    Args:
        solution: a run whose network has few weights.
        clean: learn from the truth instead of the targets.

    Raises:
        LabError: there are too many weights.
    """

    def __init__(self, solution: Solution, *, clean: bool = False) -> None:
        self.learner = solution.learner.double().cpu()
        self.learner.loss.double()
        batch = _whole(solution)
        self.inputs, self.truth, self.target = batch.inputs, batch.truth, batch.truth if clean else batch.target
        self._wanted = encoded(self.learner, self.target, torch.float64)
        self._shapes = {name: value.shape for name, value in self.learner.network.named_parameters()}
        self.names = [name for key, shape in self._shapes.items() for name in element_names(key, shape)]
        if len(self.names) > MOST_WEIGHTS:
            raise LabError(
                f"{solution.folder.path} has {len(self.names):,} weights: a surface is drawn of {MOST_WEIGHTS} or less"
            )

    @property
    def learnt(self) -> Vector:
        """The weights that the run holds → θ (P,)."""
        return torch.cat([value.flatten() for value in self.learner.network.parameters()]).numpy().copy()

    @property
    def starts(self) -> list[Vector]:
        """From where to look for the minimum: what was learnt, and the law."""
        return [self.learnt] if self.law is None else [self.learnt, self.law]

    def loss(self, weights: Vector) -> float:
        """The mean loss at θ (P,)."""
        with torch.no_grad():
            return float(self._loss(torch.from_numpy(weights)))

    def losses(self, weights: Vector) -> Vector:
        """The mean loss at many θ (M, P) → (M,)."""
        with torch.no_grad():
            try:
                many = torch.func.vmap(self._loss, chunk_size=_CHUNK)(torch.from_numpy(weights))
            except (RuntimeError, ValueError):  # a criterion from elsewhere that looks at its values
                return np.array([self.loss(each) for each in weights])
        return many.numpy()

    def gradient(self, weights: Vector) -> Vector:
        """Its gradient at θ → (P,)."""
        at = torch.from_numpy(weights).requires_grad_()
        (slope,) = torch.autograd.grad(self._loss(at), at)
        return slope.numpy()

    def hessian(self, weights: Vector) -> Vector:
        """Its second derivatives at θ → (P, P); 0 where the loss is made of straight pieces."""
        found: Tensor = torch.autograd.functional.hessian(self._loss, torch.from_numpy(weights))
        return found.numpy()

    @cached_property
    def law(self) -> Vector | None:
        """The least squares solution of the true targets → θ (P,); None where the outputs are not the values."""
        loss, features = self.learner.loss, self.inputs.flatten(1)
        probe = torch.ones(1, loss.outputs(self.learner.facts.targets), dtype=torch.float64)
        layer = next(module for module in self.learner.network.modules() if isinstance(module, nn.Linear))
        same = self.truth.is_floating_point() and torch.equal(loss.to_predictions(probe), probe)
        if not same or self.learner.probabilities(probe) is not None or layer.bias is None:
            return None
        inputs = torch.cat([features, torch.ones(len(features), 1)], dim=1)
        solved = torch.linalg.lstsq(inputs, self.truth.double(), driver="gelsd").solution
        return torch.cat([solved[:-1].T.flatten(), solved[-1]]).numpy()

    def _loss(self, weights: Tensor) -> Tensor:
        parts = weights.split([shape.numel() for shape in self._shapes.values()])
        given = {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}
        network, loss = self.learner.network, self.learner.loss
        outputs: Tensor = torch.func.functional_call(network, given, (self.inputs,))
        total = loss.total(loss.loss_inputs(outputs, self.inputs, network), self._wanted)
        return total.value / total.weight


def _whole(solution: Solution) -> Batch:
    """All training examples as one batch."""
    parts = zip(*batches(solution, "train", None, 0), strict=True)
    return Batch(*(torch.cat(columns) for columns in parts))


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
