"""How a criterion wants to be called, found out on a small batch of fixed numbers."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses.adapter.probe import Call, Criterion, Probe, class_weight, ignored_index, named
from losslab.targets import Kind, encode


def find(criterion: Criterion, given: Kind, targets: int) -> Probe:
    """Try the given kind of target as it is, then what `encode` can make of it; the first that works is taken.

    Raises:
        LabError: none works. It says what was tried and what came of it.
    """
    reasons: dict[str, str] = {}
    ran = False
    for call in _calls(criterion, given, targets):
        if call.flat and ran:
            continue  # it takes columns, and what it makes of (N,) is something else: one example of N classes
        for bounded in (False, True):
            probe = Probe(criterion, call, targets, _batches(criterion, call, given, targets, bounded), bounded)
            error = _error(probe)
            reason = error or _degeneracy(probe)
            if reason is None:
                return probe
            ran = ran or error is None
            outputs, target = probe.batches[0]
            shapes = f"{call.kind} targets {tuple(target.shape)} beside outputs {tuple(outputs.shape)}"
            reasons.setdefault(shapes if call.width == targets else f"outputs {tuple(outputs.shape)}", reason)
    tried = "; ".join(f"{shapes}: {reason}" for shapes, reason in list(reasons.items())[:3])
    raise LabError(
        f"loss {named(criterion)} cannot be used on {given} targets of {targets} columns. Tried {tried}. Choose "
        f"another loss, or write a losslab.losses.Loss with score(outputs, target) -> (N,) around it"
    )


def _calls(criterion: Criterion, given: Kind, targets: int) -> Iterator[Call]:
    if given is not Kind.INDEX:
        call = Call(given, targets)
        yield call
        if targets == 1:
            yield replace(call, flat=True)
        if given is Kind.BINARY:
            yield replace(call, integers=True)
            if targets == 1:
                yield replace(call, flat=True, integers=True)
        return
    yield Call(given, targets)
    # A loss that brings its own classifier wants embeddings, as wide as one side of a parameter.
    parameters = criterion.parameters() if isinstance(criterion, nn.Module) else ()
    widths = {size for parameter in parameters for size in parameter.shape}
    for width in sorted(widths - {targets, 0}, reverse=True):
        yield Call(given, width)
    yield Call(Kind.PROBABILITIES, targets)
    yield Call(Kind.BINARY, targets, integers=True)


def _batches(
    criterion: Criterion, call: Call, given: Kind, targets: int, bounded: bool
) -> list[tuple[Tensor, Tensor]]:  # fmt: skip
    random = torch.Generator().manual_seed(0)
    plain = _target(criterion, given, targets, call.width, random)
    target = encode(plain, given, call.kind, targets, torch.float32)
    drawn = [size * torch.randn(len(target), call.width, generator=random) for size in (1.0, 3.0, 0.3)]
    between = torch.rand(len(target), call.width, generator=random)
    return [(outputs.sigmoid() if bounded else outputs, target) for outputs in drawn] + [(between, target)]


def _target(criterion: Criterion, given: Kind, targets: int, width: int, random: torch.Generator) -> Tensor:
    """Targets of every kind of example there can be, their number differing from any other size, so as not to fit it.

    Classes come three or four times each, the one after the other, because losses of pairs want pairs.
    """
    if given is Kind.INDEX:
        classes = _telling_classes(criterion, targets)
        return classes.repeat_interleave(4 if 3 * len(classes) in {targets, width} else 3)
    rows = 14 if targets == 12 else 12
    if given is Kind.BINARY:
        labels = torch.arange(rows)[:, None] + torch.arange(targets)
        return (labels % 2).float()
    if given is Kind.PROBABILITIES:
        return torch.randn(rows, targets, generator=random).softmax(1)
    return torch.rand(rows, targets, generator=random) + 0.5


def _telling_classes(criterion: Criterion, classes: int) -> Tensor:
    """At most 16 classes, among them the heaviest and the lightest."""
    chosen = torch.linspace(0, classes - 1, min(classes, 14)).long()
    weight = class_weight(criterion, classes)
    extremes = torch.stack([weight.argmin(), weight.argmax()]).cpu() if weight is not None else chosen[:0]
    told: Tensor = torch.cat([chosen, extremes]).unique()
    ignored = ignored_index(criterion)
    return told if ignored is None else told[told != ignored]


# What these mean by a target can be told from their documentation only: they compute something from 0 and 1 as well.
_MEANT_OTHERWISE = {
    "HingeEmbeddingLoss": "its input is a distance and its target -1 or 1",
    "hinge_embedding_loss": "its input is a distance and its target -1 or 1",
    "MultiLabelMarginLoss": "its target is a list of class indices that ends in -1",
    "multilabel_margin_loss": "its target is a list of class indices that ends in -1",
}


def _error(probe: Probe) -> str | None:
    """What goes wrong when it is called in this way; None if nothing does."""
    if named(probe.criterion) in _MEANT_OTHERWISE:
        return _MEANT_OTHERWISE[named(probe.criterion)]
    try:
        values = [probe.value(*batch) for batch in probe.batches]
        for batch in probe.batches:
            probe.gradient(*batch)
    except Exception as error:  # noqa: BLE001 -- whatever a stranger's code raises is its answer
        return " ".join(str(error).split())[:160] or type(error).__name__
    return None if all(value.isfinite() for value in values) else "the loss is NaN or infinite"


def _degeneracy(probe: Probe) -> str | None:
    """Why its values are not those of a loss of these examples; None if they are."""
    gradients = torch.stack([probe.gradient(*batch) for batch in probe.batches])
    if not gradients.abs().sum((0, 2)).all():
        return "the loss of some examples does not depend on their outputs"
    if not _heeds_every_target(probe):
        return "the loss does not depend on the targets of all examples"
    return "it takes targets of -1 and 1, not of 0 and 1" if _wants_signs(probe) else None


def _heeds_every_target(probe: Probe) -> bool:
    """Whether another target changes the loss, whichever example it is of."""
    target = probe.batches[0][1]
    # The first shift that gives every example another's target that is not its own.
    shifted = [target.roll(shift, 0) for shift in (1, 3, 4)]
    others = next((other for other in shifted if (other != target).reshape(len(target), -1).any(1).all()), target)
    for row in range(len(target)):
        changed = target.clone()
        changed[row] = others[row]
        if all(torch.equal(probe.value(z, changed), probe.value(z, target)) for z, _ in probe.batches):
            return False
    return True


def _wants_signs(probe: Probe) -> bool:
    """Whether a label of 0 makes the loss a constant that is not 0: -1 was meant."""
    if probe.call.kind not in {Kind.BINARY, Kind.PROBABILITIES}:
        return False
    values = torch.stack([probe.value(z, torch.zeros_like(target)) for z, target in probe.batches])
    return bool((values == values[0]).all() and values[0] != 0)
