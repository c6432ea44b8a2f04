"""The training loss of a linear model as a function of its weights, and the minimum of this function."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from losslab.analysis.explain.figures import Array
from losslab.analysis.explain.solution import Solution, load_batches
from losslab.data.batch import Batch
from losslab.errors import LabError
from losslab.training.callbacks.weight_trajectory import element_names

_MAX_WEIGHTS = 100
_CHUNK = 256


class TrainingLoss:
    """Mean loss over all training examples of a run, in float64, as a function of the network's weights θ (P,).

    θ is the concatenation of the flattened parameters. With `clean`, the true targets replace the given targets.

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
                f"{solution.folder.path} has {len(self.names):,} weights: a surface is drawn for at most {_MAX_WEIGHTS}"
            )

    @property
    def trained_weights(self) -> Array:
        """The weights of the loaded checkpoint, θ (P,)."""
        return torch.cat([value.flatten() for value in self.learner.network.parameters()]).numpy().copy()

    @property
    def starts(self) -> list[Array]:
        """Starting points of the search for the minimum: the trained weights, and the true weights if known."""
        return [self.trained_weights, *([] if self.true_weights is None else [self.true_weights])]

    def value(self, weights: Array) -> float:
        """Compute the mean loss at θ (P,)."""
        with torch.no_grad():
            return float(self._loss(torch.from_numpy(weights)))

    def values(self, weights: Array) -> Array:
        """Compute the mean losses (M,) at M points θ (M, P)."""
        with torch.no_grad():
            try:
                losses = torch.func.vmap(self._loss, chunk_size=_CHUNK)(torch.from_numpy(weights))
            except (RuntimeError, ValueError):  # a foreign criterion that branches on values
                return np.array([self.value(each) for each in weights])
        return losses.numpy()

    def gradient(self, weights: Array) -> Array:
        """Compute the gradient (P,) at θ (P,)."""
        point = torch.from_numpy(weights).requires_grad_()
        (gradient,) = torch.autograd.grad(self._loss(point), point)
        return gradient.numpy()

    def hessian(self, weights: Array) -> Array:
        """Compute the Hessian (P, P) at θ (P,)."""
        hessian: Tensor = torch.autograd.functional.hessian(self._loss, torch.from_numpy(weights))
        return hessian.numpy()

    @cached_property
    def true_weights(self) -> Array | None:
        """Least-squares fit to the true targets, θ (P,); None if the network's outputs are not the predicted values."""
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
"""Largest gradient norm, relative to the loss, that counts as 0."""
_FAR = 1e6
"""If a weight is at least this large, the search for the minimum has diverged."""
_ROUNDING = 1e-12
"""Largest change of the loss, relative to its total decrease, that may be a rounding error."""
_SMOOTH = 1e-9
"""Smallest rise of the loss, relative to its total decrease, that `_falls_further` takes for the edge of a plateau."""


@dataclass(frozen=True)
class Minimum:
    """The point with the lowest loss that a search found."""

    weights: Array
    """Weights θ (P,) of the point."""
    loss: float
    reached: bool
    """Whether the point is a minimum: its gradient is 0, or tangents of a convex loss show that no point is lower."""


def find_minimum(loss: TrainingLoss, starts: Sequence[Array]) -> Minimum:
    """Search for the minimum of a loss from several starting points.

    BFGS minimises a smooth loss until its gradient is 0. For a loss with edges (L1, the pinball loss) it stops near an
    edge, and cutting planes then find the exact minimum. A loss that keeps falling as the weights grow, such as
    cross-entropy on separable classes, has no minimum, even if its gradient is 0 at the end of the search.
    """
    from scipy.optimize import minimize  # noqa: PLC0415

    ends = []
    with np.errstate(all="ignore"):  # a point where the loss overflows is not a minimum
        for start in starts:
            end = minimize(loss.value, start, jac=loss.gradient, method="BFGS", options={"gtol": 1e-10})
            scale = max(1.0, abs(loss.value(end.x)))
            flat = bool(np.linalg.norm(loss.gradient(end.x)) <= _FLAT * scale)
            ends.append(Minimum(end.x, float(end.fun), flat))
        best = min(ends, key=lambda end: end.loss)
        if not np.abs(best.weights).max() < _FAR or _falls_further(loss, best):
            return replace(best, reached=False)
        return best if best.reached else _cutting_planes(loss, best)


def _falls_further(loss: TrainingLoss, end: Minimum) -> bool:
    """Return whether the loss falls beyond `end` on the ray from 0, or would fall there if it were not rounded."""
    decrease = loss.value(np.zeros_like(end.weights)) - end.loss
    if not decrease > 0:
        return False
    beyond = loss.value(2 * end.weights) - end.loss
    if not abs(beyond) <= _ROUNDING * decrease:
        return bool(beyond < 0)
    # The loss is constant beyond `end`. A plateau starts at an edge; a decrease that rounding hides fades smoothly.
    rises = (loss.value(0.9**step * end.weights) - end.loss for step in range(1, 100))
    first = next((rise for rise in rises if abs(rise) > _ROUNDING * decrease), np.inf)
    return bool(0 < first < _SMOOTH * decrease)


def _cutting_planes(training_loss: TrainingLoss, start: Minimum, cuts: int = 500) -> Minimum:
    """Minimise a convex loss by Kelley's cutting planes (1960) within a box around the best point.

    The tangents of a convex loss bound it from below. Each step minimises this bound by linear programming and adds the
    tangent at its minimum. Without the box, ten dimensions need thousands of tangents (Marsten, Hogan and Blankenship,
    "The Boxstep method for large-scale optimization", 1975).
    """
    from scipy.optimize import linprog  # noqa: PLC0415

    best, radius = start, 1.0
    size = len(start.weights)
    tangents = [(start.loss, training_loss.gradient(start.weights), start.weights)]
    for _ in range(cuts):
        # The variables are the step and the bound relative to `best`. Both are divided by the radius, because the
        # tolerance of linprog is absolute.
        slopes = np.array([[*slope, -1.0] for _, slope, _ in tangents])
        heights = np.array([(best.loss - loss - slope @ (best.weights - at)) / radius for loss, slope, at in tangents])
        solved = linprog(np.eye(size + 1)[size], A_ub=slopes, b_ub=heights, bounds=[*[(-1, 1)] * size, (None, None)])
        if solved.x is None:
            return best
        predicted, at_edge = -solved.fun * radius, np.abs(solved.x[:size]).max() > 1 - 1e-6
        tolerance = 1e-10 * max(1.0, abs(best.loss))
        if predicted < -tolerance:  # a tangent is above the loss, so the loss is not convex
            return best
        if predicted <= tolerance:
            if not at_edge or radius >= 1:
                return Minimum(best.weights, best.loss, reached=True)
            radius *= 10
            continue
        at = best.weights + radius * solved.x[:size]
        loss, slope = training_loss.value(at), training_loss.gradient(at)
        tangents.append((loss, slope, at))
        good = best.loss - loss >= 0.1 * predicted
        if loss < best.loss:
            best = Minimum(at, loss, reached=False)
        if not good:
            radius /= 2
        elif at_edge:
            radius *= 2
    return best
