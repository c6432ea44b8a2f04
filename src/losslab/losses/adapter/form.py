"""Finds out how the losses of single examples are obtained from a criterion, by trials with a probe."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses.adapter.probe import Call, Criterion, Probe, class_weight, ignored_index, name_of, setting
from losslab.targets import Kind


class Route(StrEnum):
    """How the losses of single examples are obtained from a criterion. `losslab show` prints the value."""

    ELEMENTS = "per example, unreduced"
    """The criterion's `reduction` is set to "none", or it does not reduce at all."""
    MAPPED = "per example, by torch.func.vmap"
    SINGLES = "per example, by one call for each"
    WHOLE = "of the whole batch only"


@dataclass(frozen=True)
class Form:
    """How the value of a criterion follows from scores of examples: Σ scores / Σ weights, or Σ scores if `summed`."""

    route: Route
    over_columns: str = "mean"
    """How the elements of an example give its score: by "mean" or "sum"."""
    weighting: str = "one"
    """The weight of an example: 1 ("one"), or 1 ("counted") or that of its class ("class") unless it is ignored."""
    summed: bool = False
    random: bool = False
    """Whether the criterion draws random numbers in evaluation mode, too, so that no two calls agree."""

    def scores(self, criterion: Criterion, call: Call, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the scores (N,) of the examples under a criterion that `unreduced` returned."""
        if self.route is Route.SINGLES:
            singles = zip(outputs.split(1), target.split(1), strict=True)
            return torch.stack([call(criterion, z, y).mean() for z, y in singles])
        if self.route is Route.MAPPED:
            mapped: Tensor = torch.func.vmap(lambda z, y: call(criterion, z[None], y[None]).mean())(outputs, target)
            return mapped
        elements = call(criterion, outputs, target).reshape(len(outputs), -1)
        scores: Tensor = elements.sum(1) if self.over_columns == "sum" else elements.mean(1)
        return scores

    def weights(self, criterion: Criterion, targets: int, target: Tensor) -> Tensor:
        """Return the weights (N,) of the examples in the mean."""
        if self.weighting == "one":
            return torch.ones(target.shape[:1], device=target.device)
        ignored = ignored_index(criterion)
        counted = torch.ones_like(target, dtype=torch.bool) if ignored is None else target != ignored
        weight = class_weight(criterion, targets)
        if weight is None or self.weighting == "counted":
            return counted.float()
        return weight[target.where(counted, 0)] * counted


def unreduced(criterion: Criterion, route: Route) -> Criterion:
    """Return the criterion, or for Route.ELEMENTS a shallow copy with reduction="none", which shares its parameters."""
    if route is Route.ELEMENTS and isinstance(criterion, partial) and setting(criterion, "ignore_index") is not None:
        return partial(criterion, reduction="none")
    if route is not Route.ELEMENTS or not hasattr(criterion, "reduction"):
        return criterion
    clone = copy.copy(criterion)
    clone.reduction = "none"
    return clone


def find_form(probe: Probe) -> Form:
    """Return the first form that gives the criterion's value on all batches; Route.WHOLE if no form does.

    Raises:
        LabError: no form does, because the criterion broadcasts outputs and target to (N, N).
    """
    batches, ignored = [*probe.batches], ignored_index(probe.original)
    if probe.call.kind is Kind.INDEX and ignored is not None:
        batches += [(z, y.masked_fill(torch.arange(len(y)) % 4 == 1, ignored)) for z, y in probe.batches]
    # Also in evaluation mode, because a criterion may have dropout.
    modes = (True, False) if isinstance(probe.original, nn.Module) else (True,)
    for form, training in product(_forms(probe), modes):
        # Fresh copies, because a criterion may keep state between calls.
        fresh = replace(probe, training=training)
        try:
            if all(_fits(form, fresh, *batch) for batch in batches):
                return form
        except Exception:  # noqa: BLE001, S112 -- foreign code may raise anything
            continue
    if _broadcasts(probe):
        raise LabError(
            f"{name_of(probe.original)} broadcasts: it pairs the outputs of each example with the targets of all; give "
            "outputs and target the same shape inside it, e.g. target.view_as(outputs)"
        )
    outputs, target = probe.batches[0]
    values = [replace(probe, training=False, seed=seed).value(outputs, target) for seed in (0, 1)]
    return Form(Route.WHOLE, random=not torch.equal(*values))


def _forms(probe: Probe) -> Iterator[Form]:
    # The most specific weighting comes first, because a simpler one may fit these batches by chance.
    weightings = ["one"]
    if probe.call.kind is Kind.INDEX and ignored_index(probe.original) is not None:
        weightings.insert(0, "counted")
    if probe.call.kind is Kind.INDEX and class_weight(probe.original, probe.targets) is not None:
        weightings.insert(0, "class")
    for over_columns in ("mean", "sum"):
        for weighting in weightings:
            yield Form(Route.ELEMENTS, over_columns, weighting)
        yield Form(Route.ELEMENTS, over_columns, summed=True)
    for route in (Route.MAPPED, Route.SINGLES):
        yield Form(route)
        yield Form(route, summed=True)


def _fits(form: Form, probe: Probe, outputs: Tensor, target: Tensor) -> bool:
    """Return whether a form gives the value of a batch, and its scores do not depend on other examples."""
    criterion = unreduced(probe.criterion, form.route)

    def scores_of(outputs: Tensor, target: Tensor) -> Tensor:
        probe.prepare_call()
        return form.scores(criterion, probe.call, outputs, target)

    scores = scores_of(outputs, target)
    weights = form.weights(criterion, probe.targets, target)
    if scores.shape != (len(outputs),) or not weights.sum() > 0:
        return False
    if form.route is Route.ELEMENTS:
        parts = [(outputs[rows], target[rows]) for rows in (slice(0, 5), slice(5, None))]
        separate = torch.cat([scores_of(*part) for part in parts])
        if not torch.allclose(separate, scores, rtol=1e-4, atol=1e-6):
            return False
    value = scores.sum() if form.summed else scores.sum() / weights.sum()
    return torch.allclose(value, probe.value(outputs, target), rtol=1e-4, atol=1e-6)


def _broadcasts(probe: Probe) -> bool:
    """Return whether the value is the mean over all N² pairs: outputs of one example, target of the same or another."""
    outputs, target = probe.batches[0]
    if probe.call.kind is Kind.INDEX:
        return False  # class indices (N,) and outputs (N, C) do not broadcast
    pairs = [probe.value(z, y) for z in outputs.split(1) for y in target.split(1)]
    return torch.allclose(torch.stack(pairs).mean(), probe.value(outputs, target), rtol=1e-4)
