"""Finds out how to call a criterion, by trials of copies on small fixed batches."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from losslab.errors import LabError, message_of
from losslab.losses.adapter.state import State
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


_OWN_LOSS = "write a losslab.losses.Loss with score(outputs, target) -> (N,) that calls it"
_NOT_DIFFERENTIABLE = (
    "does not depend on the outputs through differentiable operations, so nothing would be learnt: look in it for "
    ".detach(), .data, .item(), argmax, NumPy, torch.tensor(...) or torch.no_grad()"
)


class NoLossError(Exception):
    """A criterion returns something that cannot be minimised. The message says what, and how to change it."""


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
    seed: int = 0
    """The seed of the random numbers in each call."""
    restores: bool = True
    """Whether each call is the first call of the criterion, as far as its state is known."""
    training: bool = True
    """Whether a criterion with a mode is called in training mode."""
    batches: list[tuple[Tensor, Tensor]] = field(init=False)
    """Random outputs (N, width) of several scales, the last in [0, 1]; each with the same target."""

    def __post_init__(self) -> None:
        self.criterion = copy_of(self.original)
        if isinstance(self.criterion, nn.Module):
            self.criterion.train(self.training)
        lazy = isinstance(self.criterion, nn.Module) and any(map(is_lazy, self.criterion.parameters()))
        self.state = State() if lazy else State(self.criterion, parameters=True)  # lazy layers change in the first call
        random = torch.Generator().manual_seed(0)
        target = encode(_target(self, random), self.kind, self.call.kind, self.targets, torch.float32)
        shape = len(target), self.call.width
        normal = [scale * torch.randn(shape, generator=random) for scale in (1.0, 3.0, 0.3)]
        outputs = [*(z.sigmoid() if self.bounded else z for z in normal), torch.rand(shape, generator=random)]
        self.batches = [(z, target) for z in outputs]

    def value(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss () of a batch. If the criterion does not reduce, this is the mean of its elements."""
        self.prepare_call()
        value = self.call(self.criterion, outputs, target)
        if isinstance(value, dict | list | tuple):
            raise NoLossError(f"returns a {type(value).__name__}, not a tensor: return the loss alone, or {_OWN_LOSS}")
        if not isinstance(value, Tensor):
            raise NoLossError(f"returns a {type(value).__name__}, not a tensor: compute it with torch, without .item()")
        if value.numel() != 1 and len(value) != len(outputs):
            raise ValueError(f"it returns shape {tuple(value.shape)}, neither one number nor one per example")
        return value.mean()

    def prepare_call(self) -> None:
        """Restore the state of the criterion, and seed torch's generator."""
        if self.restores:
            self.state.restore()
        torch.manual_seed(self.seed)

    def gradient(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the gradient (N, width) of `value` with respect to the outputs."""
        outputs = outputs.detach().clone().requires_grad_()
        value = self.value(outputs, target)
        gradient = torch.autograd.grad(value, outputs, allow_unused=True)[0] if value.requires_grad else None
        if gradient is None:
            raise NoLossError(_NOT_DIFFERENTIABLE)
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


def setting(criterion: Criterion, name: str, default: Any = None) -> Any:
    """Return the hyperparameter `name`: a keyword argument of a functools.partial, or an attribute of a module."""
    inner = getattr(criterion, "adapted_criterion", criterion)
    if isinstance(inner, partial):
        return inner.keywords.get(name, default)
    return getattr(criterion, name, getattr(inner, name, default))


def class_weight(criterion: Criterion, classes: int) -> Tensor | None:
    """Return the class weights (C,) of a criterion; None if it has none."""
    weight = setting(criterion, "weight")
    return weight if isinstance(weight, Tensor) and weight.shape == (classes,) else None


def ignored_index(criterion: Criterion) -> int | None:
    """Return the `ignore_index` of a criterion; None if it has none."""
    index = setting(criterion, "ignore_index")
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
    no_losses: list[NoLossError] = []
    ran = False
    for call in _calls(criterion, kind, targets):
        if call.flat and ran:
            continue  # the criterion accepts columns; it could take shape (N,) for one example of N classes
        for bounded in (False, True):
            probe = Probe(criterion, call, kind, targets, bounded)
            reason: str | NoLossError | None = None
            try:
                reason = error = _call_error(probe)
            except NoLossError as problem:
                no_losses.append(problem)
                continue
            for each in () if error else (probe, replace(probe, restores=False)):
                try:  # some losses depend on the target only from the second call on
                    reason = _why_not_a_loss(each)
                except NoLossError as problem:
                    reason = problem
                if reason is None:
                    return each
            ran = ran or error is None
            if isinstance(reason, NoLossError):
                no_losses.append(reason)
                continue
            assert reason is not None  # noqa: S101 -- for the type checker
            outputs, target = probe.batches[0]
            shapes = f"{call.kind} targets {tuple(target.shape)} with outputs {tuple(outputs.shape)}"
            reasons.setdefault(shapes if call.width == targets else f"outputs {tuple(outputs.shape)}", reason)
    if no_losses:
        raise LabError(f"loss {name_of(criterion)} {no_losses[0]}")
    raise _refusal(criterion, kind, targets, reasons)


def _refusal(criterion: Criterion, kind: Kind, targets: int, reasons: dict[str, str]) -> LabError:
    """Return the error for a criterion with which no call worked, for these reasons by the shapes of the call."""
    by_reason: dict[str, list[str]] = {}
    for shapes, reason in list(reasons.items())[:3]:
        by_reason.setdefault(reason.rstrip("."), []).append(shapes)
    tried = "; ".join(f"{' or '.join(shapes)}: {reason}" for reason, shapes in by_reason.items())
    missing = any("required positional argument" in reason for reason in by_reason)
    needs = " (it gets outputs and target only; its loss_inputs also gets the inputs and the network)" * missing
    size = f"with {targets} classes" if kind is Kind.INDEX else f"of {targets} columns"
    return LabError(
        f"loss {name_of(criterion)} cannot be used on {kind} targets {size}. Tried {tried}. Choose another loss, or "
        f"{_OWN_LOSS}{needs}"
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
    ignored one. Each occurs several times in a row, because losses of pairs need pairs. The classes, and the labels 0
    and 1, are not equally frequent, because some losses weight them by their frequency in the batch.
    """
    targets = probe.targets
    if probe.kind is Kind.INDEX:
        classes: Tensor = torch.linspace(0, targets - 1, min(targets, 14)).long().unique()
        weight, ignored = class_weight(probe.original, targets), ignored_index(probe.original)
        if weight is not None:
            classes = torch.cat([classes, torch.stack([weight.argmin(), weight.argmax()]).cpu()]).unique()
        if ignored is not None:
            classes = classes[classes != ignored]
        extra = next(count for count in (3, 6, 9) if 3 * len(classes) + count not in {targets, probe.call.width})
        return torch.cat([classes.repeat_interleave(3), classes[:1].expand(extra)])
    rows = 14 if targets == 12 else 12
    if probe.kind is Kind.BINARY:
        labels = torch.arange(rows)[:, None] + torch.arange(targets)
        return (labels % 3 == 0).float()
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
    except NoLossError:
        raise
    except Exception as error:
        if "numpy() on Tensor that requires grad" in str(error):  # torch advises to detach
            raise NoLossError(_NOT_DIFFERENTIABLE) from error
        return message_of(error, 160)
    return None if all(value.isfinite() for value in values) else "the loss is NaN or infinite"


def _why_not_a_loss(probe: Probe) -> str | None:
    """Return the reason why the value is not a loss of all examples of the batch; None if it is."""
    reached = torch.stack([probe.gradient(*batch) for batch in probe.batches]).abs().sum((0, 2)) > 0
    if not reached.any() and probe.call.width > 1:
        raise NoLossError(
            "has a gradient of 0 for all outputs, so nothing would be learnt: look in it for argmax, round, sign, a "
            "comparison or a conversion to integers"
        )
    target = probe.batches[0][1]
    for row in (~reached).nonzero().flatten().tolist():
        if not any(probe.gradient(z, target)[row].any() for z in _outputs_to_try(probe, row)):
            return "the loss of some examples does not depend on their outputs"
    if not _depends_on_every_target(probe):
        return "the loss does not depend on the targets of all examples"
    if probe.call.kind in {Kind.BINARY, Kind.PROBABILITIES}:
        values = torch.stack([probe.value(z, torch.zeros_like(target)) for z, target in probe.batches])
        # If targets of 0 give a constant other than 0, outputs and targets are multiplied, as for targets of -1 and 1.
        if (values == values[0]).all() and values[0] != 0:
            return "it takes targets of -1 and 1, not of 0 and 1"
    return None


def _outputs_to_try(probe: Probe, row: int) -> Iterator[Tensor]:
    """Yield the outputs of all batches, then such in which one example is right or wrong with confidence.

    Each comes with another seed: a loss may take only the hardest examples, or draw some at random.
    """
    for factor in (1, 20, -20):
        for outputs, _ in probe.batches:
            changed = outputs.clone()
            if factor != 1:
                changed[row] = (factor * (changed[row] - 0.5)).sigmoid() if probe.bounded else factor * changed[row]
            yield changed
            probe.seed += 1
    probe.seed = 0


def _depends_on_every_target(probe: Probe) -> bool:
    """Return whether the loss changes whenever the target of one example changes."""
    target = probe.batches[0][1]
    for row in range(len(target)):
        changed = target.clone()
        following = target.roll(-row, 0)
        changed[row] = following[(following != target[row]).reshape(len(target), -1).any(1)][0]  # the next other target
        values = ((probe.value(z, changed), probe.value(z, target)) for z in _outputs_to_try(probe, row))
        if all(torch.equal(one, other) for one, other in values):
            return False
    probe.seed = 0
    return True
