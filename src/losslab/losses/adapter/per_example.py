"""The ways in which scores of single examples are got from a criterion, and how they make up its value.

Finding the per-example form of a criterion that shows its reduced value only: the first that holds by numbers.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from losslab.losses.adapter.probe import Call, Criterion, Probe, class_weight, copied, ignored_index
from losslab.targets import Kind


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
            raise ValueError(f"losses of {entry['reduction_type']} are not of examples")
        total = part if total is None else total + part
    if total is None:
        raise ValueError("no losses")
    return total.expand(count)


def _alone(outputs: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return ((outputs[row : row + 1], target[row : row + 1]) for row in range(len(outputs)))


def find_form(probe: Probe) -> Form:
    """The first form whose scores make up the criterion's own value on all batches and do not see each other."""
    batches = [*probe.batches, *_with_ignored(probe)]
    for form in _forms(probe):
        # Copies: of a criterion that remembers, each form sees the same past.
        criterion = prepared(copied(probe.original), form.route)
        trial = replace(probe, batches=batches)
        try:
            if all(_makes_up(form, criterion, trial, *batch) for batch in batches):
                return form
        except Exception:  # noqa: BLE001, S112 -- a stranger's code: whatever it raises, this is not its form
            continue
    return Form(Route.WHOLE)


def _forms(probe: Probe) -> Iterator[Form]:
    # The most particular weights first: where none of them is heard of in the batches, others would do as well.
    weightings = ["one"]
    if probe.call.kind is Kind.INDEX and ignored_index(probe.original) is not None:
        weightings.insert(0, "counted")
    if probe.call.kind is Kind.INDEX and class_weight(probe.original, probe.targets) is not None:
        weightings.insert(0, "class")
    for over_columns in ("mean", "sum"):
        for weighting in weightings:
            yield Form(Route.ELEMENTS, over_columns, weighting)
            yield Form(Route.ELEMENTS, over_columns, "one", summed=True)
    for route in (Route.ENTRIES, Route.MAPPED, Route.SINGLES):
        yield Form(route)
        yield Form(route, summed=True)


def _makes_up(form: Form, criterion: Criterion, probe: Probe, outputs: Tensor, target: Tensor) -> bool:
    scores = form.scores(criterion, probe.call, outputs, target)
    weights = form.weights(criterion, probe.targets, target)
    if scores.shape != (len(outputs),) or not weights.sum() > 0:
        return False
    if form.route in {Route.ELEMENTS, Route.ENTRIES}:
        # Alone as in company, or a score is not one of the example.
        parts = [(outputs[rows], target[rows]) for rows in (slice(0, 5), slice(5, None))]
        alone = torch.cat([form.scores(criterion, probe.call, *part) for part in parts])
        if not torch.allclose(alone, scores, rtol=1e-4, atol=1e-6):
            return False
    value = scores.sum() if form.summed else scores.sum() / weights.sum()
    return torch.allclose(value, probe.value(outputs, target), rtol=1e-4, atol=1e-6)


def broadcasts(probe: Probe) -> bool:
    """Whether the value is the mean over all pairs of one example's outputs and another's target: (N, N) losses."""
    outputs, target = probe.batches[0]
    if probe.call.kind is Kind.INDEX:
        return False  # class indices (N,) and outputs (N, C) do not broadcast
    pairs = [probe.value(z, y) for z in outputs.split(1) for y in target.split(1)]
    return torch.allclose(torch.stack(pairs).mean(), probe.value(outputs, target), rtol=1e-4)


def _with_ignored(probe: Probe) -> list[tuple[Tensor, Tensor]]:
    """The batches with some targets ignored, where the criterion ignores any."""
    index = ignored_index(probe.original)
    if probe.call.kind is not Kind.INDEX or index is None:
        return []
    some = torch.arange(len(probe.batches[0][1])) % 4 == 1
    return [(outputs, target.masked_fill(some, index)) for outputs, target in probe.batches]
