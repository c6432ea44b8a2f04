"""The per-example form of a criterion: how it scores single examples, and how these scores make up its value."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from losslab.losses.adapter.probe import Call, Criterion, Probe, class_weight, copy_of, ignored_index
from losslab.targets import Kind


class Route(StrEnum):
    """How the scores of single examples are obtained from a criterion."""

    ELEMENTS = "each example, without its reduction"
    """Its `reduction` is set to "none", or it does not reduce at all."""
    ENTRIES = "each example, without its reducer"
    """Its `reducer`, as the losses of pytorch-metric-learning have one, is replaced by one that keeps all losses."""
    MAPPED = "each example, called on it alone"
    """It is called on every example alone, by torch.func.vmap."""
    SINGLES = "each example, called on it alone in a loop"
    """It is called on every example alone, in a loop."""
    WHOLE = "the batch as a whole"
    """There are none: it scores a batch only."""


@dataclass(frozen=True)
class Form:
    """The criterion's value is Σ scores / Σ weights, or Σ scores if `summed`."""

    route: Route
    over_columns: str = "mean"
    """Whether the score of an example is the "mean" or the "sum" of its elements."""
    weighting: str = "one"
    """The weight of an example: 1 ("one"), 0 if ignored ("counted"), or that of its class too ("class")."""
    summed: bool = False

    def scores(self, criterion: Criterion, call: Call, outputs: Tensor, target: Tensor) -> Tensor:
        """The losses of the examples under a criterion from `unreduced` → (N,)."""
        if self.route is Route.SINGLES:
            singles = zip(outputs.split(1), target.split(1), strict=True)
            return torch.stack([call(criterion, z, y).mean() for z, y in singles])
        if self.route is Route.MAPPED:
            mapped: Tensor = torch.func.vmap(lambda z, y: call(criterion, z[None], y[None]).mean())(outputs, target)
            return mapped
        result = call(criterion, outputs, target)
        if self.route is Route.ENTRIES:
            return _sum_of_entries(result, len(outputs))
        elements = result.reshape(len(outputs), -1)
        scores: Tensor = elements.sum(1) if self.over_columns == "sum" else elements.mean(1)
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


def unreduced(criterion: Criterion, route: Route) -> Criterion:
    """A shallow copy of the criterion that does not reduce; it shares the criterion's parameters and buffers."""
    changes: dict[Route, tuple[str, Any]] = {
        Route.ELEMENTS: ("reduction", "none"),
        Route.ENTRIES: ("reducer", _KeepAll()),
    }
    name, value = changes.get(route, ("", None))
    if not hasattr(criterion, name):
        return criterion
    clone = copy.copy(criterion)
    if isinstance(clone, nn.Module):
        clone._modules = dict(clone._modules)  # noqa: SLF001 -- a shallow copy shares this dict with the original
    setattr(clone, name, value)
    return clone


class _KeepAll(nn.Module):
    """A reducer of pytorch-metric-learning that returns its input, a dict of losses with their indices."""

    def forward(self, losses: dict[str, Any], *_: Any) -> dict[str, Any]:
        return losses


def _sum_of_entries(entries: dict[str, Any], count: int) -> Tensor:
    """The sum of a reducer's entries, each with a loss per example or one for the batch → (N,)."""
    total: Tensor | None = None
    for entry in entries.values():
        part = torch.as_tensor(entry["losses"])
        if part.ndim and (entry["reduction_type"] != "element" or len(part) != count):
            raise ValueError(f"losses of {entry['reduction_type']} are not of examples")
        total = part if total is None else total + part
    if total is None:
        raise ValueError("no losses")
    return total.expand(count)


def find_form(probe: Probe) -> Form:
    """The first form with independent scores that make up the criterion's own value on all batches."""
    batches = [*probe.batches, *_with_ignored(probe)]
    for form in _forms(probe):
        # Fresh copies, because a criterion may keep state between calls.
        criterion, fresh = unreduced(copy_of(probe.original), form.route), replace(probe)
        try:
            if all(_holds(form, criterion, fresh, *batch) for batch in batches):
                return form
        except Exception:  # noqa: BLE001, S112 -- foreign code may raise anything
            continue
    return Form(Route.WHOLE)


def _forms(probe: Probe) -> Iterator[Form]:
    # The most specific weighting first: a simpler one also holds where the batches do not show the difference.
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


def _holds(form: Form, criterion: Criterion, probe: Probe, outputs: Tensor, target: Tensor) -> bool:
    scores = form.scores(criterion, probe.call, outputs, target)
    weights = form.weights(criterion, probe.targets, target)
    if scores.shape != (len(outputs),) or not weights.sum() > 0:
        return False
    if form.route in {Route.ELEMENTS, Route.ENTRIES}:
        # The score of an example must not depend on the rest of the batch.
        parts = [(outputs[rows], target[rows]) for rows in (slice(0, 5), slice(5, None))]
        separate = torch.cat([form.scores(criterion, probe.call, *part) for part in parts])
        if not torch.allclose(separate, scores, rtol=1e-4, atol=1e-6):
            return False
    value = scores.sum() if form.summed else scores.sum() / weights.sum()
    return torch.allclose(value, probe.value(outputs, target), rtol=1e-4, atol=1e-6)


def broadcasts(probe: Probe) -> bool:
    """Whether the value is the mean over all N² pairs of an example's outputs and another's target."""
    outputs, target = probe.batches[0]
    if probe.call.kind is Kind.INDEX:
        return False  # class indices (N,) and outputs (N, C) do not broadcast
    pairs = [probe.value(z, y) for z in outputs.split(1) for y in target.split(1)]
    return torch.allclose(torch.stack(pairs).mean(), probe.value(outputs, target), rtol=1e-4)


def _with_ignored(probe: Probe) -> list[tuple[Tensor, Tensor]]:
    """The batches with some targets ignored, if the criterion has an `ignore_index`."""
    index = ignored_index(probe.original)
    if probe.call.kind is not Kind.INDEX or index is None:
        return []
    some = torch.arange(len(probe.batches[0][1])) % 4 == 1
    return [(outputs, target.masked_fill(some, index)) for outputs, target in probe.batches]
