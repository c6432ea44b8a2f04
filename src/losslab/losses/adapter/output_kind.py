"""What a criterion takes the outputs of a network for: logits, probabilities, values, ...

The evidence, from certain to likely: the class of the criterion, equality with a loss of torch on random outputs, and
the behaviour of its value and gradient. `identify` reports only what is certain, for the doctor, which must not raise
false alarms. `infer` decides on what is likely, for the adapter, whose losses need metrics that can read the outputs.
"""

from enum import StrEnum
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losslab.losses.adapter.probe import Criterion, Probe, copy_of, finite_value
from losslab.losses.base import Loss
from losslab.targets import Kind, encode


class OutputKind(StrEnum):
    """What the outputs of a network stand for under a criterion."""

    LOGITS = "logits"
    """Of exclusive classes: p = softmax(z)."""
    BINARY_LOGITS = "binary logits"
    """Of independent labels: p = σ(z)."""
    SCORES = "class scores"
    """Of exclusive classes, of which only differences matter, as under a margin loss."""
    SIGNED_SCORES = "signed scores"
    """For targets of -1 and 1."""
    LOG_PROBABILITIES = "log-probabilities"
    """p = exp(z)."""
    PROBABILITIES = "probabilities"
    """p = z, where the criterion accepts nothing outside [0, 1]."""
    VALUES = "values"
    """Estimates of the target itself: of values, or of probabilities that may lie outside [0, 1]."""
    LOG_VALUES = "logarithms of values"
    """Of the value to regress, such as a Poisson rate."""
    UNKNOWN = "unknown"
    """Not identified, or not comparable with the target, as embeddings are."""

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(N, C) → (N, C)."""
        match self:
            case OutputKind.BINARY_LOGITS:
                return torch.sigmoid(outputs)
            case OutputKind.LOG_PROBABILITIES:
                return torch.exp(outputs)
            case OutputKind.PROBABILITIES | OutputKind.VALUES:  # clamped as in ResidualLoss, for logarithms
                return outputs.clamp(torch.finfo(torch.float32).eps, 1.0)
            case _:
                return torch.softmax(outputs, dim=1)


_TORCH: dict[type[nn.Module], tuple[Any, OutputKind]] = {
    nn.CrossEntropyLoss: (F.cross_entropy, OutputKind.LOGITS),
    nn.NLLLoss: (F.nll_loss, OutputKind.LOG_PROBABILITIES),
    nn.KLDivLoss: (F.kl_div, OutputKind.LOG_PROBABILITIES),
    nn.BCEWithLogitsLoss: (F.binary_cross_entropy_with_logits, OutputKind.BINARY_LOGITS),
    nn.MultiLabelSoftMarginLoss: (F.multilabel_soft_margin_loss, OutputKind.BINARY_LOGITS),
    nn.BCELoss: (F.binary_cross_entropy, OutputKind.PROBABILITIES),
    nn.SoftMarginLoss: (F.soft_margin_loss, OutputKind.SIGNED_SCORES),
    nn.HingeEmbeddingLoss: (F.hinge_embedding_loss, OutputKind.SIGNED_SCORES),
    nn.MultiMarginLoss: (F.multi_margin_loss, OutputKind.SCORES),
    nn.MSELoss: (F.mse_loss, OutputKind.VALUES),
    nn.L1Loss: (F.l1_loss, OutputKind.VALUES),
    nn.SmoothL1Loss: (F.smooth_l1_loss, OutputKind.VALUES),
    nn.HuberLoss: (F.huber_loss, OutputKind.VALUES),
    nn.PoissonNLLLoss: (F.poisson_nll_loss, OutputKind.LOG_VALUES),
}
"""Losses of torch, each with the function that computes the same."""


def torch_class(criterion: Criterion) -> type[nn.Module] | None:
    """The class in torch.nn that this criterion is an instance or the functional form of; None for all others."""
    function = criterion.func if isinstance(criterion, partial) else criterion
    classes = (cls for cls, (same, _) in _TORCH.items() if isinstance(criterion, cls) or function is same)
    return next(classes, None)


def is_known(criterion: Criterion) -> bool:
    """Whether the kind of outputs follows from the class of the criterion."""
    return isinstance(criterion, Loss) or torch_class(criterion) is not None


def setting(criterion: Criterion, name: str, default: Any = None) -> Any:
    """A hyperparameter: an attribute of a module, or a keyword of a functools.partial."""
    if isinstance(criterion, partial):
        return criterion.keywords.get(name, default)
    return getattr(criterion, name, default)


def identify(criterion: Criterion, outputs: Tensor, target: Tensor) -> OutputKind:
    """What a criterion takes outputs (N, ...) of this shape for, if it is certain; otherwise UNKNOWN."""
    if isinstance(criterion, Loss):
        return _declared(criterion, outputs)
    known = torch_class(criterion)
    if known is nn.PoissonNLLLoss and not setting(criterion, "log_input", default=True):
        return OutputKind.VALUES
    if known is not None:
        return _TORCH[known][1]
    if isinstance(criterion, nn.Module) and type(criterion).__module__.startswith("torch.nn."):
        return OutputKind.UNKNOWN  # torch's others take more than two arguments or a target in a format of their own
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(outputs.shape, generator=random).to(outputs.dtype)
    target = target.cpu()  # on a GPU an index out of range ends the use of the device by this process
    if not target.is_floating_point() and outputs.ndim > 1:
        target = target.clamp(0, outputs.shape[1] - 1)
    equal = _equal_to_torch(criterion, drawn, target)
    if equal is not None:
        return equal
    return OutputKind.LOGITS if _takes_softmax(criterion, drawn, target) else OutputKind.UNKNOWN


def infer(probe: Probe) -> OutputKind:
    """What the outputs most likely stand for, judged by values and gradients of the criterion.

    A criterion that is linear in the outputs takes log-probabilities; one that is lowest where the outputs equal the
    target takes estimates of it; one whose gradient in a column does not depend on the other columns takes independent
    labels.
    """
    if probe.call.kind is Kind.VALUES:
        return _infer_from_values(probe)
    if probe.call.width != probe.targets or _is_same_for_renamed_classes(probe):
        return OutputKind.UNKNOWN
    equal = _equal_to_torch(partial(probe.call, copy_of(probe.original)), *probe.batches[0])
    if equal is not None:
        return equal
    if _is_lowest_at_target(probe):
        return OutputKind.PROBABILITIES if probe.bounded else OutputKind.VALUES
    if _is_linear(probe):
        return OutputKind.LOG_PROBABILITIES
    labels = probe.call.kind is Kind.BINARY and not probe.call.integers
    independent = labels or probe.targets == 1 or _is_separable(probe)
    return OutputKind.BINARY_LOGITS if independent else OutputKind.LOGITS


def find_classifier(criterion: Criterion, width: int, classes: int) -> str | None:
    """The attribute that maps embeddings (N, width) to class logits (N, C), if a criterion has one.

    It is `get_logits` of the losses of pytorch-metric-learning, or the only fitting torch.nn.Linear of a module.
    """
    if callable(getattr(criterion, "get_logits", None)):
        return "get_logits"
    children = criterion.named_children() if isinstance(criterion, nn.Module) else ()
    layers = [(name, child) for name, child in children if isinstance(child, nn.Linear)]
    fitting = [name for name, layer in layers if (layer.in_features, layer.out_features) == (width, classes)]
    return fitting[0] if len(fitting) == 1 else None


def _declared(loss: Loss, outputs: Tensor) -> OutputKind:
    """What a loss of this package says itself, by the kinds it wants and by its `to_probabilities`."""
    if loss.wants[0] is Kind.VALUES:
        return OutputKind.VALUES  # its probabilities may be the default of the base class, and mean nothing
    columns = outputs.shape[1] if outputs.ndim > 1 else 1
    logits = torch.linspace(-2, 3, 2 * columns, device=outputs.device).view(2, columns)
    try:
        probabilities = loss.to_probabilities(logits)
    except Exception:  # noqa: BLE001 -- a user's own loss, which need not have probabilities
        probabilities = logits
    if loss.wants[0] is not Kind.BINARY and torch.allclose(probabilities, logits.softmax(1)):
        return OutputKind.LOGITS
    if torch.allclose(probabilities, logits.sigmoid()):
        return OutputKind.BINARY_LOGITS
    return OutputKind.SCORES if Kind.INDEX in loss.wants else OutputKind.UNKNOWN


def _equal_to_torch(criterion: Criterion, outputs: Tensor, target: Tensor) -> OutputKind | None:
    """What the loss of torch that has the same value on random outputs takes them for; None if no loss has."""
    for kind, reference, drawn in (
        (OutputKind.VALUES, F.mse_loss, outputs),
        (OutputKind.VALUES, F.l1_loss, outputs),
        (OutputKind.BINARY_LOGITS, F.binary_cross_entropy_with_logits, outputs),
        (OutputKind.PROBABILITIES, F.binary_cross_entropy, outputs.sigmoid()),
        (OutputKind.LOG_PROBABILITIES, F.nll_loss, outputs),
        (OutputKind.LOG_PROBABILITIES, partial(F.kl_div, reduction="batchmean"), outputs),
    ):
        # The criterion may convert the target itself; a loss of torch does not.
        if reference is F.nll_loss:
            converted = target.long()
        else:
            converted = target.to(drawn.dtype).view_as(drawn) if target.numel() == drawn.numel() else target
        value = finite_value(criterion, drawn, target)
        if value is not None and _is_close(value, finite_value(reference, drawn, converted)):
            return kind
    return None


def _takes_softmax(criterion: Criterion, drawn: Tensor, target: Tensor) -> bool:
    """Whether adding a number to all logits of an example changes nothing, and other changes do."""
    if drawn.ndim != 2 or drawn.shape[1] < 2:
        return False
    value = finite_value(criterion, drawn, target)
    shifted = finite_value(criterion, drawn + 2 * drawn[:, :1].abs() + 1, target)
    scaled = finite_value(criterion, drawn * 2, target)
    return value is not None and _is_close(value, shifted) and not _is_close(value, scaled)


def _is_close(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and bool(torch.isclose(value.double(), other.double(), rtol=1e-4, atol=1e-7).all())


def _infer_from_values(probe: Probe) -> OutputKind:
    """Whether the loss is lowest where the outputs equal the target, or its logarithm as under a Poisson log-rate."""
    target = probe.batches[0][1]  # positive
    for kind, best in ((OutputKind.VALUES, target), (OutputKind.LOG_VALUES, target.log())):
        if _is_lowest(probe, best, [best + shift for shift in (-3.0, -1.0, 1.0, 3.0)], target):
            return kind
    return OutputKind.UNKNOWN


def _is_same_for_renamed_classes(probe: Probe) -> bool:
    """Whether the loss only tells classes apart: it stays the same when all of them are renamed."""
    if probe.call.kind is not Kind.INDEX:
        return False
    return all(
        torch.allclose(probe.value(outputs, target), probe.value(outputs, (target + 1) % probe.targets))
        for outputs, target in probe.batches
    )


def _is_linear(probe: Probe) -> bool:
    first, *others = [probe.gradient(*batch) for batch in probe.batches]
    return all(torch.equal(first, other) for other in others)


def _is_lowest_at_target(probe: Probe) -> bool:
    """Whether no other outputs do as well as the target itself, written as columns."""
    target = columns = probe.batches[0][1]
    if target.ndim == 1:
        columns = encode(target, Kind.INDEX, Kind.PROBABILITIES, probe.targets, torch.float32)
    others = [columns / 2, 2 * columns, 10 * columns - 5, *(outputs for outputs, _ in probe.batches)]
    return _is_lowest(probe, columns, others, target)


def _is_lowest(probe: Probe, best: Tensor, others: list[Tensor], target: Tensor) -> bool:
    """Whether the loss of the best outputs is below that of each of the others by more than rounding."""
    lowest = _value_or_infinity(probe, best, target)
    return all(lowest + 1e-5 * lowest.abs() < _value_or_infinity(probe, outputs, target) for outputs in others)


def _is_separable(probe: Probe) -> bool:
    """Whether the gradient in the other columns stays the same when the first column changes."""
    outputs, target = probe.batches[0]
    changed = outputs.clone()
    changed[:, 0] = probe.batches[1][0][:, 0]
    return torch.allclose(probe.gradient(outputs, target)[:, 1:], probe.gradient(changed, target)[:, 1:])


def _value_or_infinity(probe: Probe, outputs: Tensor, target: Tensor) -> Tensor:
    """The loss; infinity where the criterion does not accept these outputs."""
    try:
        return probe.value(outputs, target).nan_to_num(torch.inf)
    except Exception:  # noqa: BLE001 -- foreign code may raise anything
        return torch.tensor(torch.inf)
