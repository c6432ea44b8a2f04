"""How a criterion interprets the outputs of a network: as logits, probabilities, values, ...

`identify` is for `losslab.doctor`, which must not raise false alarms: it returns UNKNOWN if the class of the criterion,
and its values on random outputs, leave doubt. `infer` is for the adapter: metrics need an interpretation of the
outputs, so it also uses tests of values and gradients that are only an indication.
"""

from enum import StrEnum
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losslab.losses.adapter.probe import Criterion, Probe, copy_of, finite_value, setting
from losslab.losses.base import Loss
from losslab.targets import Kind, encode


class OutputKind(StrEnum):
    """What a criterion takes the outputs z for."""

    LOGITS = "logits"
    """Logits of exclusive classes: p = softmax(z)."""
    BINARY_LOGITS = "binary logits"
    """Logits of independent labels: p = σ(z)."""
    SCORES = "class scores"
    """Scores of exclusive classes for a margin loss, where only the differences between scores matter."""
    SIGNED_SCORES = "signed scores"
    """Scores whose sign predicts a target of -1 or 1."""
    LOG_PROBABILITIES = "log-probabilities"
    """Logarithms of probabilities: p = exp(z)."""
    PROBABILITIES = "probabilities"
    """Probabilities p = z. The criterion accepts only outputs in [0, 1]."""
    VALUES = "values"
    """Estimates of the target itself: of values, or of probabilities if the criterion accepts any outputs."""
    LOG_VALUES = "logarithms of values"
    """Logarithms of estimates of the target, such as of a Poisson rate."""
    UNKNOWN = "unknown"
    """The meaning was not identified, or the outputs cannot be compared with the target, such as embeddings."""


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
"""For each loss class of torch.nn, the equivalent function, and what both take the outputs for."""


def torch_class(criterion: Criterion) -> type[nn.Module] | None:
    """Return the torch.nn class of which the criterion is an instance or the functional form; else None."""
    criterion = getattr(criterion, "adapted_criterion", criterion)
    function = criterion.func if isinstance(criterion, partial) else criterion
    classes = (cls for cls, (same, _) in _TORCH.items() if isinstance(criterion, cls) or function is same)
    return next(classes, None)


def is_known(criterion: Criterion) -> bool:
    """Return whether the class of the criterion determines the meaning of the outputs."""
    return isinstance(criterion, Loss) or torch_class(criterion) is not None


def ignored_class(loss: nn.Module) -> int | None:
    """Return the `ignore_index` of a loss, of the first of its terms, or of its criterion; None if it has none."""
    indices = (setting(getattr(part, "criterion", part), "ignore_index") for part in loss.modules())
    return next((index for index in indices if isinstance(index, int)), None)


def identify(criterion: Criterion, outputs: Tensor, target: Tensor) -> OutputKind:
    """Return what a criterion takes outputs of this shape (N, ...) for, or UNKNOWN if there is doubt."""
    known = torch_class(criterion)
    if isinstance(criterion, Loss) and known is None:
        return _declared(criterion, outputs)
    if known is nn.PoissonNLLLoss and not setting(criterion, "log_input", default=True):
        return OutputKind.VALUES
    if known is not None:
        return _TORCH[known][1]
    if isinstance(criterion, nn.Module) and type(criterion).__module__.startswith("torch.nn."):
        return OutputKind.UNKNOWN  # other losses of torch take more than two arguments, or another format of target
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(outputs.shape, generator=random).to(outputs.dtype)
    target = target.cpu()  # on a GPU, an index out of range makes the device unusable in this process
    if not target.is_floating_point() and outputs.ndim > 1:
        target = target.clamp(0, outputs.shape[1] - 1)
    equal = _equal_to_torch(criterion, drawn, target)
    if equal is not None:
        return equal
    return OutputKind.LOGITS if _takes_softmax(criterion, drawn, target) else OutputKind.UNKNOWN


def infer(probe: Probe) -> OutputKind:
    """Return the most likely meaning of the outputs. The first test that succeeds decides.

    For values: the loss is lowest where the outputs equal the target, or its logarithm; else UNKNOWN. For classes and
    labels, in this order: embeddings are UNKNOWN; the loss equals a loss of torch; it is lowest where the outputs equal
    the target (VALUES, or PROBABILITIES if outputs must be in [0, 1]); its gradient is the same for all outputs
    (LOG_PROBABILITIES); labels are binary, or the gradient in a column does not depend on other columns
    (BINARY_LOGITS); else LOGITS.
    """
    if probe.call.kind is Kind.VALUES:
        target = probe.batches[0][1]  # positive, so that it has a logarithm
        ideals = {OutputKind.VALUES: target, OutputKind.LOG_VALUES: target.log()}
        shifts = (-3.0, -1.0, 1.0, 3.0)
        fitting = (kind for kind, z in ideals.items() if _is_lowest(probe, z, [z + shift for shift in shifts], target))
        return next(fitting, OutputKind.UNKNOWN)
    if probe.call.width != probe.targets or _is_same_for_renamed_classes(probe):
        return OutputKind.UNKNOWN
    equal = _equal_to_torch(partial(probe.call, copy_of(probe.original)), *probe.batches[0])
    if equal is not None:
        return equal
    if _is_lowest_at_target(probe):
        return OutputKind.PROBABILITIES if probe.bounded else OutputKind.VALUES
    first, *others = [probe.gradient(*batch) for batch in probe.batches]
    if all(torch.equal(first, other) for other in others):
        return OutputKind.LOG_PROBABILITIES
    has_binary_target = probe.call.kind is Kind.BINARY and not probe.call.integers
    is_independent = has_binary_target or probe.targets == 1 or _is_separable(probe)
    return OutputKind.BINARY_LOGITS if is_independent else OutputKind.LOGITS


def find_classifier(criterion: Criterion, width: int, classes: int) -> str | None:
    """Return the name of the attribute that maps embeddings (N, width) to class logits (N, C); None if there is none.

    The attribute is `get_logits`, as in pytorch-metric-learning, or the only torch.nn.Linear with this shape.
    """
    if callable(getattr(criterion, "get_logits", None)):
        return "get_logits"
    children = criterion.named_children() if isinstance(criterion, nn.Module) else ()
    layers = [(name, child) for name, child in children if isinstance(child, nn.Linear)]
    fitting = [name for name, layer in layers if (layer.in_features, layer.out_features) == (width, classes)]
    return fitting[0] if len(fitting) == 1 else None


def _declared(loss: Loss, outputs: Tensor) -> OutputKind:
    """Return what a loss of this package takes the outputs for, according to its `wants` and `to_probabilities`."""
    if loss.wants[0] is Kind.VALUES:
        return OutputKind.VALUES  # the `to_probabilities` of regression losses has no meaning
    columns = outputs.shape[1] if outputs.ndim > 1 else 1
    logits = torch.linspace(-2, 3, 2 * columns, device=outputs.device).view(2, columns)
    try:
        probabilities = loss.to_probabilities(logits)
    except Exception:  # noqa: BLE001 -- a user's loss, which may have no probabilities
        probabilities = logits
    if probabilities.shape != logits.shape:  # the loss has its own classifier
        return OutputKind.UNKNOWN
    if loss.wants[0] is not Kind.BINARY and torch.allclose(probabilities, logits.softmax(1)):
        return OutputKind.LOGITS
    if torch.allclose(probabilities, logits.sigmoid()):
        return OutputKind.BINARY_LOGITS
    return OutputKind.SCORES if Kind.INDEX in loss.wants else OutputKind.UNKNOWN


def _equal_to_torch(criterion: Criterion, outputs: Tensor, target: Tensor) -> OutputKind | None:
    """Return what the loss of torch with the same value takes the outputs for; None if no loss of torch has it."""
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
    """Return whether the loss stays the same if a number is added to all logits of an example, but not if doubled."""
    if drawn.ndim != 2 or drawn.shape[1] < 2:
        return False
    value = finite_value(criterion, drawn, target)
    shifted = finite_value(criterion, drawn + 2 * drawn[:, :1].abs() + 1, target)
    scaled = finite_value(criterion, drawn * 2, target)
    return value is not None and _is_close(value, shifted) and not _is_close(value, scaled)


def _is_close(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and bool(torch.isclose(value.double(), other.double(), rtol=1e-4, atol=1e-7).all())


def _is_same_for_renamed_classes(probe: Probe) -> bool:
    """Return whether the loss stays the same if all classes are renamed, as for a loss of pairs of embeddings."""
    if probe.call.kind is not Kind.INDEX:
        return False
    return all(
        torch.allclose(probe.value(outputs, target), probe.value(outputs, (target + 1) % probe.targets))
        for outputs, target in probe.batches
    )


def _is_lowest_at_target(probe: Probe) -> bool:
    """Return whether outputs equal to the target, as columns of 0 and 1, have a lower loss than other outputs."""
    target = columns = probe.batches[0][1]
    if target.ndim == 1:
        columns = encode(target, Kind.INDEX, Kind.PROBABILITIES, probe.targets, torch.float32)
    others = [columns / 2, 2 * columns, 10 * columns - 5, *(outputs for outputs, _ in probe.batches)]
    return _is_lowest(probe, columns, others, target)


def _is_lowest(probe: Probe, best: Tensor, others: list[Tensor], target: Tensor) -> bool:
    """Return whether the outputs `best` have a lower loss than each of `others`, by more than rounding."""

    def value_of(outputs: Tensor) -> Tensor:
        try:
            return probe.value(outputs, target).nan_to_num(torch.inf)
        except Exception:  # noqa: BLE001 -- foreign code may raise anything, here because it does not accept the outputs
            return torch.tensor(torch.inf)

    lowest = value_of(best)
    return all(lowest + 1e-5 * lowest.abs() < value_of(outputs) for outputs in others)


def _is_separable(probe: Probe) -> bool:
    """Return whether the gradient in the other columns stays the same if the first column changes."""
    outputs, target = probe.batches[0]
    changed = outputs.clone()
    changed[:, 0] = probe.batches[1][0][:, 0]
    return torch.allclose(probe.gradient(outputs, target)[:, 1:], probe.gradient(changed, target)[:, 1:])
