"""Finding the per-example form of a criterion that shows its reduced value only: the first that holds by numbers."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from losslab.losses.adapting.forms import Form, Route, prepared
from losslab.losses.adapting.probe import Criterion, Probe, class_weight, copied, ignored_index
from losslab.targets import Kind


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
