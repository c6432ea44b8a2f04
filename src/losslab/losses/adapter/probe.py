"""Finds out how to call a criterion and get losses of single examples, by trials of copies on small fixed batches."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from losslab.errors import LabError, message_of
from losslab.targets import Kind, encode

Criterion = Callable[[Any, Any], Any]
"""A function of outputs and target, or a module such as torch.nn.MSELoss."""


@dataclass(frozen=True)
class Call:
    """A way to call a criterion: with outputs (N, width) and a target of the kind `kind`."""

    kind: Kind
    width: int
    flat: bool = False
    """Whether outputs and target, which have one column, are passed in shape (N,)."""
    integers: bool = False
    """Whether a target with columns of 0 and 1 is passed as int64."""

    def __call__(self, criterion: Criterion, outputs: Tensor, target: Tensor) -> Any:
        """Call the criterion without autocast, so that float32 outputs are scored in float32."""
        if self.flat:
            outputs, target = outputs.squeeze(1), target.squeeze(1)
        with torch.autocast(outputs.device.type, enabled=False):
            return criterion(outputs, target.long() if self.integers else target)


@dataclass
class Probe:
    """A trial: a copy of a criterion, a way to call it, and batches to call it on."""

    original: Criterion
    call: Call
    kind: Kind
    """The kind of target that the data provide."""
    targets: int
    """Number of classes C, labels K or values D."""
    bounded: bool = False
    """Whether all outputs are in [0, 1], because the criterion accepts no others."""
    batches: list[tuple[Tensor, Tensor]] = field(init=False)
    """Random outputs (N, width) of several scales, the last in [0, 1]; each with the same target."""

    def __post_init__(self) -> None:
        self.criterion = copy_of(self.original)
        random = torch.Generator().manual_seed(0)
        target = encode(_target(self, random), self.kind, self.call.kind, self.targets, torch.float32)
        shape = len(target), self.call.width
        normal = [scale * torch.randn(shape, generator=random) for scale in (1.0, 3.0, 0.3)]
        outputs = [*(z.sigmoid() if self.bounded else z for z in normal), torch.rand(shape, generator=random)]
        self.batches = [(z, target) for z in outputs]

    def value(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss () of a batch. If the criterion does not reduce, this is the mean of its elements."""
        value = self.call(self.criterion, outputs, target)
        if not isinstance(value, Tensor):
            raise TypeError(f"it returns {type(value).__name__}, not a tensor")
        if value.numel() != 1 and len(value) != len(outputs):
            raise ValueError(f"it returns shape {tuple(value.shape)}, neither one number nor one per example")
        return value.mean()

    def gradient(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the gradient (N, width) of `value` with respect to the outputs."""
        outputs = outputs.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.value(outputs, target), outputs)
        return gradient


def name_of(criterion: Criterion) -> str:
    """Return the name of a criterion for messages: that of the function, or of the module's class."""
    inner = criterion.func if isinstance(criterion, partial) else criterion
    return str(getattr(inner, "__name__", type(inner).__name__))


def copy_of(criterion: Criterion) -> Criterion:
    """Return a deep copy, because a criterion may keep state between calls. Raise LabError if this fails."""
    try:
        return copy.deepcopy(criterion)
    except Exception as error:
        raise LabError(f"loss {name_of(criterion)} cannot be copied for a trial: {message_of(error, 160)}") from error


def class_weight(criterion: Criterion, classes: int) -> Tensor | None:
    """Return the class weights (C,) of a criterion; None if it has none."""
    weight = getattr(criterion, "weight", None)
    return weight if isinstance(weight, Tensor) and weight.shape == (classes,) else None


def ignored_index(criterion: Criterion) -> int | None:
    """Return the `ignore_index` of a criterion; None if it has none."""
    index = getattr(criterion, "ignore_index", None)
    return index if isinstance(index, int) else None


@torch.no_grad()
def finite_value(criterion: Criterion, outputs: Tensor, target: Tensor) -> Tensor | None:
    """Return the loss; None if it is not a single finite number, or if the criterion raises an error."""
    try:
        value = criterion(outputs, target)
    except Exception:  # noqa: BLE001 -- foreign code may raise anything
        return None
    return value if isinstance(value, Tensor) and value.numel() == 1 and bool(value.isfinite().all()) else None


def find_probe(criterion: Criterion, kind: Kind, targets: int) -> Probe:
    """Return the probe of the first call that works, for the data's kind of target or one that `encode` can make of it.

    Raises:
        LabError: no call works. The message lists what was tried and how it failed.
    """
    reasons: dict[str, str] = {}
    ran = False
    for call in _calls(criterion, kind, targets):
        if call.flat and ran:
            continue  # the criterion accepts columns; it could take shape (N,) for one example of N classes
        for bounded in (False, True):
            probe = Probe(criterion, call, kind, targets, bounded)
            error = _call_error(probe)
            reason = error or _why_not_a_loss(probe)
            if reason is None:
                return probe
            ran = ran or error is None
            outputs, target = probe.batches[0]
            shapes = f"{call.kind} targets {tuple(target.shape)} with outputs {tuple(outputs.shape)}"
            reasons.setdefault(shapes if call.width == targets else f"outputs {tuple(outputs.shape)}", reason)
    tried = "; ".join(f"{shapes}: {reason}" for shapes, reason in list(reasons.items())[:3])
    size = f"with {targets} classes" if kind is Kind.INDEX else f"of {targets} columns"
    raise LabError(
        f"loss {name_of(criterion)} cannot be used on {kind} targets {size}. Tried {tried}. Choose another loss, or "
        "write a losslab.losses.Loss with score(outputs, target) -> (N,) that calls it"
    )


def _calls(criterion: Criterion, kind: Kind, targets: int) -> list[Call]:
    if kind is not Kind.INDEX:
        flats = (False, True) if targets == 1 else (False,)
        dtypes = (False, True) if kind is Kind.BINARY else (False,)  # values of Call.integers
        return [Call(kind, targets, flat, integers) for integers in dtypes for flat in flats]
    # A loss with its own classifier takes embeddings, whose width is one of the sizes of a parameter.
    parameters = criterion.parameters() if isinstance(criterion, nn.Module) else ()
    widths = {size for parameter in parameters if not is_lazy(parameter) for size in parameter.shape} - {targets, 0}
    return [
        *(Call(kind, width) for width in (targets, *sorted(widths, reverse=True))),
        Call(Kind.PROBABILITIES, targets),
        Call(Kind.BINARY, targets, integers=True),
    ]


def _target(probe: Probe, random: torch.Generator) -> Tensor:
    """Return a target whose length N differs from all other sizes, so that no dimension fits by chance.

    Class indices contain at most 16 classes, among them those with the largest and the smallest weight, but not the
    ignored one. Each occurs three or four times in a row, because losses of pairs need pairs.
    """
    targets = probe.targets
    if probe.kind is Kind.INDEX:
        classes: Tensor = torch.linspace(0, targets - 1, min(targets, 14)).long().unique()
        weight, ignored = class_weight(probe.original, targets), ignored_index(probe.original)
        if weight is not None:
            classes = torch.cat([classes, torch.stack([weight.argmin(), weight.argmax()]).cpu()]).unique()
        if ignored is not None:
            classes = classes[classes != ignored]
        return classes.repeat_interleave(4 if 3 * len(classes) in {targets, probe.call.width} else 3)
    rows = 14 if targets == 12 else 12
    if probe.kind is Kind.BINARY:
        labels = torch.arange(rows)[:, None] + torch.arange(targets)
        return (labels % 2).float()
    if probe.kind is Kind.PROBABILITIES:
        return torch.randn(rows, targets, generator=random).softmax(1)
    return torch.rand(rows, targets, generator=random) + 0.5


# Criteria that raise no error for targets of 0 and 1, although their documentation prescribes other targets.
_OTHER_TARGET_FORMATS = {
    "HingeEmbeddingLoss": "its input is a distance and its target -1 or 1",
    "hinge_embedding_loss": "its input is a distance and its target -1 or 1",
    "MultiLabelMarginLoss": "its target is a list of class indices that ends in -1",
    "multilabel_margin_loss": "its target is a list of class indices that ends in -1",
}


def _call_error(probe: Probe) -> str | None:
    """Return the reason why the criterion cannot be called in this way; None if it can."""
    if name_of(probe.criterion) in _OTHER_TARGET_FORMATS:
        return _OTHER_TARGET_FORMATS[name_of(probe.criterion)]
    try:
        values = [probe.value(*batch) for batch in probe.batches]
        for batch in probe.batches:
            probe.gradient(*batch)
    except Exception as error:  # noqa: BLE001 -- foreign code may raise anything
        return message_of(error, 160)
    return None if all(value.isfinite() for value in values) else "the loss is NaN or infinite"


def _why_not_a_loss(probe: Probe) -> str | None:
    """Return the reason why the value is not a loss of all examples of the batch; None if it is."""
    gradients = torch.stack([probe.gradient(*batch) for batch in probe.batches])
    if not gradients.abs().sum((0, 2)).all():
        return "the loss of some examples does not depend on their outputs"
    if not _depends_on_every_target(probe):
        return "the loss does not depend on the targets of all examples"
    if probe.call.kind in {Kind.BINARY, Kind.PROBABILITIES}:
        values = torch.stack([probe.value(z, torch.zeros_like(target)) for z, target in probe.batches])
        # If targets of 0 give a constant other than 0, outputs and targets are multiplied, as for targets of -1 and 1.
        if (values == values[0]).all() and values[0] != 0:
            return "it takes targets of -1 and 1, not of 0 and 1"
    return None


def _depends_on_every_target(probe: Probe) -> bool:
    """Return whether the loss changes whenever the target of one example changes."""
    target = probe.batches[0][1]
    # The first shift with which each example gets a different target. Classes occur 3 or 4 times in a row.
    shifted = [target.roll(shift, 0) for shift in (1, 3, 4)]
    others = next((other for other in shifted if (other != target).reshape(len(target), -1).any(1).all()), target)
    for row in range(len(target)):
        changed = target.clone()
        changed[row] = others[row]
        if all(torch.equal(probe.value(z, changed), probe.value(z, target)) for z, _ in probe.batches):
            return False
    return True


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
    for form in _forms(probe):
        # Fresh copies, because a criterion may keep state between calls.
        criterion, fresh = unreduced(copy_of(probe.original), form.route), replace(probe)
        try:
            if all(_fits(form, criterion, fresh, *batch) for batch in batches):
                return form
        except Exception:  # noqa: BLE001, S112 -- foreign code may raise anything
            continue
    if _broadcasts(probe):
        raise LabError(
            f"{name_of(probe.original)} broadcasts: it pairs the outputs of each example with the targets of all; give "
            "outputs and target the same shape inside it, e.g. target.view_as(outputs)"
        )
    return Form(Route.WHOLE)


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


def _fits(form: Form, criterion: Criterion, probe: Probe, outputs: Tensor, target: Tensor) -> bool:
    """Return whether a form gives the value of a batch, and its scores do not depend on other examples."""
    scores = form.scores(criterion, probe.call, outputs, target)
    weights = form.weights(criterion, probe.targets, target)
    if scores.shape != (len(outputs),) or not weights.sum() > 0:
        return False
    if form.route is Route.ELEMENTS:
        parts = [(outputs[rows], target[rows]) for rows in (slice(0, 5), slice(5, None))]
        separate = torch.cat([form.scores(criterion, probe.call, *part) for part in parts])
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
