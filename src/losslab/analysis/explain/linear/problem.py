"""The training loss of a linear model as a function of its weights, and the minimum of that function."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from losslab.analysis.explain.solution import Solution, load_batches
from losslab.data.batch import Batch
from losslab.errors import LabError
from losslab.training.callbacks.weight_trajectory import element_names

Vector = np.ndarray[Any, np.dtype[np.float64]]
_MAX_WEIGHTS = 100
_CHUNK = 256


class Problem:
    """The mean loss of a run on all training examples, in float64, as a function of the weights θ (P,).

    θ holds the network's parameters in their order.

    Args:
        solution: a run whose network has few weights.
        clean: use the truth as targets.

    Raises:
        LabError: the network has too many weights.
    """

    def __init__(self, solution: Solution, *, clean: bool = False) -> None:
        self.learner = solution.learner.double().cpu()
        self.learner.loss.double()
        batch = Batch(*(torch.cat(parts) for parts in zip(*load_batches(solution, "train", None, 0), strict=True)))
        self.inputs, self.truth, self.target = batch.inputs, batch.truth, batch.truth if clean else batch.target
        self._encoded = self.learner.encode_target(self.target, torch.float64)
        self._shapes = {name: value.shape for name, value in self.learner.network.named_parameters()}
        self.names = [name for key, shape in self._shapes.items() for name in element_names(key, shape)]
        if len(self.names) > _MAX_WEIGHTS:
            raise LabError(
                f"{solution.folder.path} has {len(self.names):,} weights: a surface is drawn of {_MAX_WEIGHTS} or less"
            )

    @property
    def learnt(self) -> Vector:
        """The weights of the run → θ (P,)."""
        return torch.cat([value.flatten() for value in self.learner.network.parameters()]).numpy().copy()

    @property
    def starts(self) -> list[Vector]:
        """Starting points of the search for the minimum: the learnt weights and the true ones."""
        return [self.learnt] if self.true_weights is None else [self.learnt, self.true_weights]

    def loss(self, weights: Vector) -> float:
        """The mean loss at θ (P,)."""
        with torch.no_grad():
            return float(self._loss(torch.from_numpy(weights)))

    def losses(self, weights: Vector) -> Vector:
        """The mean loss at M points θ (M, P) → (M,)."""
        with torch.no_grad():
            try:
                losses = torch.func.vmap(self._loss, chunk_size=_CHUNK)(torch.from_numpy(weights))
            except (RuntimeError, ValueError):  # a foreign criterion that branches on values
                return np.array([self.loss(each) for each in weights])
        return losses.numpy()

    def gradient(self, weights: Vector) -> Vector:
        """The gradient at θ → (P,)."""
        point = torch.from_numpy(weights).requires_grad_()
        (gradient,) = torch.autograd.grad(self._loss(point), point)
        return gradient.numpy()

    def hessian(self, weights: Vector) -> Vector:
        """The Hessian at θ → (P, P); 0 for a piecewise linear loss."""
        hessian: Tensor = torch.autograd.functional.hessian(self._loss, torch.from_numpy(weights))
        return hessian.numpy()

    @cached_property
    def true_weights(self) -> Vector | None:
        """The least-squares solution for the true targets → θ (P,); None if outputs are not the predicted values."""
        loss, features = self.learner.loss, self.inputs.flatten(1)
        probe = torch.ones(1, loss.outputs(self.learner.spec.targets), dtype=torch.float64)
        layer = next(module for module in self.learner.network.modules() if isinstance(module, nn.Linear))
        same = self.truth.is_floating_point() and torch.equal(loss.to_predictions(probe), probe)
        if not same or self.learner.probabilities(probe) is not None or layer.bias is None:
            return None
        inputs = torch.cat([features, torch.ones(len(features), 1)], dim=1)
        solved = torch.linalg.lstsq(inputs, self.truth.double(), driver="gelsd").solution
        return torch.cat([solved[:-1].T.flatten(), solved[-1]]).numpy()

    def _loss(self, weights: Tensor) -> Tensor:
        parts = weights.split([shape.numel() for shape in self._shapes.values()])
        parameters = {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}
        network, loss = self.learner.network, self.learner.loss
        outputs: Tensor = torch.func.functional_call(network, parameters, (self.inputs,))
        total = loss.total(loss.loss_inputs(outputs, self.inputs, network), self._encoded)
        return total.value / total.weight


_FLAT = 1e-6
"""A gradient norm, relative to the loss, that counts as 0."""
_FAR = 1e6
"""A weight of this size means that the search diverged."""
_ROUNDING = 1e-12
"""A change of the loss, relative to its whole decrease, that may be rounding."""
_SMOOTH = 1e-9
"""A loss that leaves a plateau at an edge changes at first by more than this."""


@dataclass(frozen=True)
class Minimum:
    """The lowest point found."""

    weights: Vector
    """θ (P,)."""
    loss: float
    reached: bool
    """Whether it is a minimum: the gradient is 0, or the tangents of a convex loss allow nothing lower."""


def find_minimum(problem: Problem, starts: Sequence[Vector]) -> Minimum:
    """The lowest minimum found from these starting points.

    BFGS follows a smooth loss to a gradient of 0. For a loss with edges (L1, the pinball loss) it ends near an edge;
    cutting planes then find the exact minimum. A loss that falls forever with growing weights, as that of separable
    classes, has no minimum, however flat it is where the search ends.
    """
    from scipy.optimize import minimize  # noqa: PLC0415

    ends = []
    with np.errstate(all="ignore"):  # a point that overflows is no minimum
        for start in starts:
            end = minimize(problem.loss, start, jac=problem.gradient, method="BFGS", options={"gtol": 1e-10})
            scale = max(1.0, abs(problem.loss(end.x)))
            flat = bool(np.linalg.norm(problem.gradient(end.x)) <= _FLAT * scale)
            ends.append(Minimum(end.x, float(end.fun), flat))
        best = min(ends, key=lambda end: end.loss)
        if not np.abs(best.weights).max() < _FAR or _falls_further(problem, best):
            return replace(best, reached=False)
        return best if best.reached else _cutting_planes(problem, best)


def _falls_further(problem: Problem, end: Minimum) -> bool:
    """Whether the loss keeps falling beyond the end of a search, away from 0, or did until rounding hid it."""
    decrease = problem.loss(np.zeros_like(end.weights)) - end.loss
    if not decrease > 0:
        return False
    beyond = problem.loss(2 * end.weights) - end.loss
    if not abs(beyond) <= _ROUNDING * decrease:
        return bool(beyond < 0)
    # Level beyond. A plateau starts at an edge; a decrease that rounding hides fades out smoothly.
    rises = (problem.loss(0.9**step * end.weights) - end.loss for step in range(1, 100))
    first = next((rise for rise in rises if abs(rise) > _ROUNDING * decrease), np.inf)
    return bool(0 < first < _SMOOTH * decrease)


def _cutting_planes(problem: Problem, start: Minimum, cuts: int = 500) -> Minimum:
    """Minimise the lower bound that the tangents so far give to a convex loss, within a box around the best point.

    Kelley's cutting planes (1960) alone need thousands of tangents in ten dimensions. The box keeps the tangents where
    they are useful (Marsten, Hogan and Blankenship, "The Boxstep method for large-scale optimization", 1975).
    """
    from scipy.optimize import linprog  # noqa: PLC0415

    best, radius = start, 1.0
    size = len(start.weights)
    tangents = [(start.loss, problem.gradient(start.weights), start.weights)]
    for _ in range(cuts):
        # Variables: the step and the bound relative to `best`, in units of the radius, as the tolerance is absolute.
        slopes = np.array([[*slope, -1.0] for _, slope, _ in tangents])
        heights = np.array([(best.loss - loss - slope @ (best.weights - at)) / radius for loss, slope, at in tangents])
        solved = linprog(np.eye(size + 1)[size], A_ub=slopes, b_ub=heights, bounds=[*[(-1, 1)] * size, (None, None)])
        if solved.x is None:
            return best
        promised, at_edge = -solved.fun * radius, np.abs(solved.x[:size]).max() > 1 - 1e-6
        tolerance = 1e-10 * max(1.0, abs(best.loss))
        if promised < -tolerance:  # a tangent lies above the loss, which is therefore not convex
            return best
        if promised <= tolerance:
            if not at_edge or radius >= 1:
                return Minimum(best.weights, best.loss, reached=True)
            radius *= 10
            continue
        at = best.weights + radius * solved.x[:size]
        loss, slope = problem.loss(at), problem.gradient(at)
        tangents.append((loss, slope, at))
        good = best.loss - loss >= 0.1 * promised
        if loss < best.loss:
            best = Minimum(at, loss, reached=False)
        if not good:
            radius /= 2
        elif at_edge:
            radius *= 2
    return best
