"""The ways in which scores of single examples are got from a criterion, and how they make up its value."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from losslab.losses.adapting.probe import Call, Criterion, class_weight, ignored_index


class Route(StrEnum):
    """How scores of single examples are got from a criterion."""

    ELEMENTS = "each example, without its reduction"
    """Its `reduction` is "none", or it does not reduce at all."""
    ENTRIES = "each example, without its reducer"
    """It hands its losses to a `reducer`, as pytorch-metric-learning's do: they are taken from there."""
    MAPPED = "each example, called on it alone"
    """It is called on every example alone, by torch.func.vmap."""
    SINGLES = "each example, called on it alone in a loop"
    """It is called on every example alone, in a loop."""
    WHOLE = "the batch as a whole"
    """There is none: the loss is one of the batch."""


@dataclass(frozen=True)
class Form:
    """How the criterion's value comes from scores: Σ scores / Σ weights, or Σ scores where `summed`."""

    route: Route
    over_columns: str = "mean"
    """Whether an example's score is the "mean" or the "sum" of its elements."""
    weighting: str = "one"
    """The weight of an example in the mean: "one", "counted" (0 where ignored), "class" (and its class's weight)."""
    summed: bool = False
    """Whether the criterion sums over examples where others average."""

    def scores(self, criterion: Criterion, call: Call, outputs: Tensor, target: Tensor) -> Tensor:
        """The losses of the examples, from a criterion that `prepared` made ready → (N,)."""
        if self.route is Route.SINGLES:
            return torch.stack([call(criterion, z, y).mean() for z, y in _alone(outputs, target)])
        if self.route is Route.MAPPED:
            mapped: Tensor = torch.func.vmap(lambda z, y: call(criterion, z[None], y[None]).mean())(outputs, target)
            return mapped
        result = call(criterion, outputs, target)
        if self.route is Route.ENTRIES:
            return _sum_of_entries(result, len(outputs))
        columns = result.reshape(len(outputs), -1)
        scores: Tensor = columns.sum(1) if self.over_columns == "sum" else columns.mean(1)
        return scores

    def weights(self, criterion: Criterion, targets: int, target: Tensor) -> Tensor:
        """The weights of the examples in the mean → (N,)."""
        if self.weighting == "one":
            return torch.ones(target.shape[:1], device=target.device)
        ignored = ignored_index(criterion)
        counted = torch.ones_like(target, dtype=torch.bool) if ignored is None else target != ignored
        weight = class_weight(criterion, targets)
        if weight is None or self.weighting == "counted":
            return counted.float()
        return weight[target.where(counted, 0)] * counted


def prepared(criterion: Criterion, route: Route) -> Criterion:
    """A shallow copy of the criterion that does not reduce: its parameters and buffers are the criterion's own."""
    changes: dict[Route, tuple[str, Any]] = {
        Route.ELEMENTS: ("reduction", "none"),
        Route.ENTRIES: ("reducer", _Handed()),
    }
    name, value = changes.get(route, ("", None))
    if not hasattr(criterion, name):
        return criterion
    clone = copy.copy(criterion)
    if isinstance(clone, nn.Module):
        clone._modules = dict(clone._modules)  # noqa: SLF001 -- a copy shares the dict in which submodules are replaced
    setattr(clone, name, value)
    return clone


class _Handed(nn.Module):
    """A reducer that hands back what it was given: a dict of losses and where they belong."""

    def forward(self, losses: dict[str, Any], *_: Any) -> dict[str, Any]:
        return losses


def _sum_of_entries(entries: Any, count: int) -> Tensor:
    """Losses of examples, and what is one number for the batch beside each → (N,)."""
    total: Tensor | None = None
    for entry in entries.values():
        part = torch.as_tensor(entry["losses"])
        if part.ndim and (entry["reduction_type"] != "element" or len(part) != count):
            message = f"losses of {entry['reduction_type']} are not of examples"
            raise ValueError(message)
        total = part if total is None else total + part
    if total is None:
        message = "no losses"
        raise ValueError(message)
    return total.expand(count)


def _alone(outputs: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return ((outputs[row : row + 1], target[row : row + 1]) for row in range(len(outputs)))
