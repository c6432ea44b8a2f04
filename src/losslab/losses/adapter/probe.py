"""Finds out how a criterion of unknown origin is called, on a copy of it and small fixed batches."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from losslab.errors import LabError, message_of
from losslab.targets import Kind, encode

Criterion = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Call:
    """Calls a criterion with outputs (N, width) and a target of one kind."""

    kind: Kind
    width: int
    flat: bool = False
    """Whether outputs and target of one column are passed as (N,)."""
    integers: bool = False
    """Whether columns of 0 and 1 are passed as int64."""

    def __call__(self, criterion: Criterion, outputs: Tensor, target: Tensor) -> Any:
        """The result of the criterion, with autocast disabled: float32 outputs are scored in float32."""
        if self.flat:
            outputs, target = outputs.squeeze(1), target.squeeze(1)
        with torch.autocast(outputs.device.type, enabled=False):
            return criterion(outputs, target.long() if self.integers else target)


@dataclass
class Probe:
    """A copy of a criterion, how to call it, and batches to call it on."""

    original: Criterion
    call: Call
    targets: int
    """C classes, K labels or D values."""
    batches: list[tuple[Tensor, Tensor]]
    """Random outputs (N, width) of different scales, the last within [0, 1], each with the same target."""
    bounded: bool = False
    """Whether all outputs of the batches lie within [0, 1] because the criterion accepts no others."""

    def __post_init__(self) -> None:
        self.criterion = copy_of(self.original)

    def value(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; the mean over its elements if the criterion does not reduce → ()."""
        value = self.call(self.criterion, outputs, target)
        if not isinstance(value, Tensor):
            raise TypeError(f"it returns {type(value).__name__}, not a tensor")
        if value.numel() != 1 and len(value) != len(outputs):
            raise ValueError(f"it returns shape {tuple(value.shape)}, neither one number nor one per example")
        return value.mean()

    def gradient(self, outputs: Tensor, target: Tensor) -> Tensor:
        """∂ value / ∂ outputs → (N, width)."""
        outputs = outputs.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.value(outputs, target), outputs)
        return gradient


def name_of(criterion: Criterion) -> str:
    """The name of a criterion in messages."""
    inner = criterion.func if isinstance(criterion, partial) else criterion
    return str(getattr(inner, "__name__", type(inner).__name__))


def copy_of(criterion: Criterion) -> Criterion:
    """A deep copy, because a criterion may keep state between calls. Raises LabError if it cannot be copied."""
    try:
        return copy.deepcopy(criterion)
    except Exception as error:
        raise LabError(f"loss {name_of(criterion)} cannot be copied for a trial: {message_of(error, 160)}") from error


def class_weight(criterion: Criterion, classes: int) -> Tensor | None:
    """The criterion's class weights (C,), if it has any."""
    weight = getattr(criterion, "weight", None)
    return weight if isinstance(weight, Tensor) and weight.shape == (classes,) else None


def ignored_index(criterion: Criterion) -> int | None:
    """The criterion's `ignore_index`, if it has one."""
    index = getattr(criterion, "ignore_index", None)
    return index if isinstance(index, int) else None


@torch.no_grad()
def finite_value(criterion: Criterion, outputs: Tensor, target: Tensor) -> Tensor | None:
    """The loss if it is a single finite number; None if it is not, or if the criterion raises."""
    try:
        value = criterion(outputs, target)
    except Exception:  # noqa: BLE001 -- foreign code may raise anything
        return None
    return value if isinstance(value, Tensor) and value.numel() == 1 and bool(value.isfinite().all()) else None


@contextmanager
def trial_conditions() -> Iterator[None]:
    """Seed and afterwards restore torch's random state, silence warnings, and make those about broadcasting errors."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=r"(?s).*(target size|broadcast)")
        torch.manual_seed(0)
        yield


def find_call(criterion: Criterion, kind: Kind, targets: int) -> Probe:
    """Try the target kind of the data as it is, then what `encode` can make of it; return the first that works.

    Raises:
        LabError: none works. It lists what was tried and how it failed.
    """
    reasons: dict[str, str] = {}
    ran = False
    for call in _calls(criterion, kind, targets):
        if call.flat and ran:
            continue  # it takes columns; (N,) would mean one example of N classes to it
        for bounded in (False, True):
            probe = Probe(criterion, call, targets, _batches(criterion, call, kind, targets, bounded), bounded)
            error = _call_error(probe)
            reason = error or _degeneracy(probe)
            if reason is None:
                return probe
            ran = ran or error is None
            outputs, target = probe.batches[0]
            shapes = f"{call.kind} targets {tuple(target.shape)} with outputs {tuple(outputs.shape)}"
            reasons.setdefault(shapes if call.width == targets else f"outputs {tuple(outputs.shape)}", reason)
    tried = "; ".join(f"{shapes}: {reason}" for shapes, reason in list(reasons.items())[:3])
    raise LabError(
        f"loss {name_of(criterion)} cannot be used on {kind} targets of {targets} columns. Tried {tried}. Choose "
        f"another loss, or wrap it in a losslab.losses.Loss with score(outputs, target) -> (N,)"
    )


def _calls(criterion: Criterion, kind: Kind, targets: int) -> Iterator[Call]:
    call = Call(kind, targets)
    yield call
    if kind is Kind.INDEX:
        # A loss with its own classifier takes embeddings, as wide as one dimension of a parameter.
        parameters = criterion.parameters() if isinstance(criterion, nn.Module) else ()
        widths = {size for parameter in parameters for size in parameter.shape}
        for width in sorted(widths - {targets, 0}, reverse=True):
            yield Call(kind, width)
        yield Call(Kind.PROBABILITIES, targets)
        yield Call(Kind.BINARY, targets, integers=True)
        return
    if targets == 1:
        yield replace(call, flat=True)
    if kind is Kind.BINARY:
        yield replace(call, integers=True)
        if targets == 1:
            yield replace(call, flat=True, integers=True)


def _batches(
    criterion: Criterion, call: Call, kind: Kind, targets: int, bounded: bool
) -> list[tuple[Tensor, Tensor]]:  # fmt: skip
    random = torch.Generator().manual_seed(0)
    target = encode(_target(criterion, kind, targets, call.width, random), kind, call.kind, targets, torch.float32)
    normal = [scale * torch.randn(len(target), call.width, generator=random) for scale in (1.0, 3.0, 0.3)]
    uniform = torch.rand(len(target), call.width, generator=random)
    return [(outputs.sigmoid() if bounded else outputs, target) for outputs in normal] + [(uniform, target)]


def _target(criterion: Criterion, kind: Kind, targets: int, width: int, random: torch.Generator) -> Tensor:
    """A target with every kind of example, whose N differs from all other sizes, so that no dimension fits by chance.

    Each class occurs three or four times in a row, because losses of pairs need pairs.
    """
    if kind is Kind.INDEX:
        classes = _classes_to_try(criterion, targets)
        return classes.repeat_interleave(4 if 3 * len(classes) in {targets, width} else 3)
    rows = 14 if targets == 12 else 12
    if kind is Kind.BINARY:
        labels = torch.arange(rows)[:, None] + torch.arange(targets)
        return (labels % 2).float()
    if kind is Kind.PROBABILITIES:
        return torch.randn(rows, targets, generator=random).softmax(1)
    return torch.rand(rows, targets, generator=random) + 0.5


def _classes_to_try(criterion: Criterion, classes: int) -> Tensor:
    """At most 16 classes, among them those of the largest and the smallest weight, without the ignored one."""
    spread = torch.linspace(0, classes - 1, min(classes, 14)).long()
    weight = class_weight(criterion, classes)
    extremes = torch.stack([weight.argmin(), weight.argmax()]).cpu() if weight is not None else spread[:0]
    chosen: Tensor = torch.cat([spread, extremes]).unique()
    ignored = ignored_index(criterion)
    return chosen if ignored is None else chosen[chosen != ignored]


# Only their documentation says how these read a target: on 0 and 1 they compute something too.
_OTHER_TARGET_FORMATS = {
    "HingeEmbeddingLoss": "its input is a distance and its target -1 or 1",
    "hinge_embedding_loss": "its input is a distance and its target -1 or 1",
    "MultiLabelMarginLoss": "its target is a list of class indices that ends in -1",
    "multilabel_margin_loss": "its target is a list of class indices that ends in -1",
}


def _call_error(probe: Probe) -> str | None:
    """What goes wrong in this call; None if nothing does."""
    if name_of(probe.criterion) in _OTHER_TARGET_FORMATS:
        return _OTHER_TARGET_FORMATS[name_of(probe.criterion)]
    try:
        values = [probe.value(*batch) for batch in probe.batches]
        for batch in probe.batches:
            probe.gradient(*batch)
    except Exception as error:  # noqa: BLE001 -- foreign code may raise anything
        return message_of(error, 160)
    return None if all(value.isfinite() for value in values) else "the loss is NaN or infinite"


def _degeneracy(probe: Probe) -> str | None:
    """Why the values cannot be a loss of all these examples; None if they can."""
    gradients = torch.stack([probe.gradient(*batch) for batch in probe.batches])
    if not gradients.abs().sum((0, 2)).all():
        return "the loss of some examples does not depend on their outputs"
    if not _depends_on_every_target(probe):
        return "the loss does not depend on the targets of all examples"
    return "it takes targets of -1 and 1, not of 0 and 1" if _takes_signs(probe) else None


def _depends_on_every_target(probe: Probe) -> bool:
    """Whether a change of any single target changes the loss."""
    target = probe.batches[0][1]
    # The first shift by which every example gets a different target.
    shifted = [target.roll(shift, 0) for shift in (1, 3, 4)]
    others = next((other for other in shifted if (other != target).reshape(len(target), -1).any(1).all()), target)
    for row in range(len(target)):
        changed = target.clone()
        changed[row] = others[row]
        if all(torch.equal(probe.value(z, changed), probe.value(z, target)) for z, _ in probe.batches):
            return False
    return True


def _takes_signs(probe: Probe) -> bool:
    """Whether labels of 0 make the loss a constant other than 0, so that labels of -1 and 1 are expected."""
    if probe.call.kind not in {Kind.BINARY, Kind.PROBABILITIES}:
        return False
    values = torch.stack([probe.value(z, torch.zeros_like(target)) for z, target in probe.batches])
    return bool((values == values[0]).all() and values[0] != 0)
