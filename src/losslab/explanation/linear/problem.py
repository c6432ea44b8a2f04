"""What a linear model is asked to solve: its loss over all training examples, as a function of its weights alone."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from losslab.callbacks.path import numbered
from losslab.data.batch import Batch
from losslab.errors import LabError
from losslab.explanation.solution import Solution, batches, encoded

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
        self.names = [name for key, shape in self._shapes.items() for name in numbered(key, shape)]
        if len(self.names) > MOST_WEIGHTS:
            message = (
                f"{solution.folder.path} has {len(self.names):,} weights: a surface is drawn of {MOST_WEIGHTS} or less"
            )
            raise LabError(message)

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
        total = loss.total(loss.seen(outputs, self.inputs, network), self._wanted)
        return total.value / total.weight


def _whole(solution: Solution) -> Batch:
    """All training examples as one batch."""
    parts = zip(*batches(solution, "train", None, 0), strict=True)
    return Batch(*(torch.cat(columns) for columns in parts))
