"""What a loss takes the outputs for. Known for torch's and this package's losses, found out by trying for others."""

import functools
from collections.abc import Callable
from copy import deepcopy
from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losslab.losses.base import Loss

Criterion = Callable[[Any, Any], Any]


class Reads(StrEnum):
    """What a loss takes the outputs for."""

    LOGITS = "logits of exclusive classes"
    """It takes their softmax by itself."""
    BINARY_LOGITS = "logits of yes and no"
    """It takes their sigmoid by itself."""
    LOG_PROBABILITIES = "log-probabilities"
    PROBABILITIES = "probabilities of yes"
    SIGNED = "scores beside targets of -1 and 1"
    SCORES = "scores of exclusive classes"
    VALUES = "values"
    UNKNOWN = "outputs"


_BY_CLASS: dict[type, Reads] = {
    nn.CrossEntropyLoss: Reads.LOGITS,
    nn.NLLLoss: Reads.LOG_PROBABILITIES,
    nn.KLDivLoss: Reads.LOG_PROBABILITIES,
    nn.BCEWithLogitsLoss: Reads.BINARY_LOGITS,
    nn.MultiLabelSoftMarginLoss: Reads.BINARY_LOGITS,
    nn.BCELoss: Reads.PROBABILITIES,
    nn.SoftMarginLoss: Reads.SIGNED,
    nn.HingeEmbeddingLoss: Reads.SIGNED,
    nn.MultiMarginLoss: Reads.SCORES,
    nn.MSELoss: Reads.VALUES,
    nn.L1Loss: Reads.VALUES,
    nn.SmoothL1Loss: Reads.VALUES,
    nn.HuberLoss: Reads.VALUES,
    nn.PoissonNLLLoss: Reads.VALUES,
}
_CLASS_OF: dict[Any, type] = {
    F.cross_entropy: nn.CrossEntropyLoss,
    F.nll_loss: nn.NLLLoss,
    F.kl_div: nn.KLDivLoss,
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
    F.multilabel_soft_margin_loss: nn.MultiLabelSoftMarginLoss,
    F.binary_cross_entropy: nn.BCELoss,
    F.soft_margin_loss: nn.SoftMarginLoss,
    F.hinge_embedding_loss: nn.HingeEmbeddingLoss,
    F.multi_margin_loss: nn.MultiMarginLoss,
    F.mse_loss: nn.MSELoss,
    F.l1_loss: nn.L1Loss,
    F.smooth_l1_loss: nn.SmoothL1Loss,
    F.huber_loss: nn.HuberLoss,
    F.poisson_nll_loss: nn.PoissonNLLLoss,
}


def is_a(loss: Criterion, kind: type) -> bool:
    """Whether the loss is torch's module of this class, or the function that does the same."""
    function = loss.func if isinstance(loss, functools.partial) else loss
    return isinstance(loss, kind) or (callable(function) and _CLASS_OF.get(_hashable(function)) is kind)


def setting(loss: Criterion, name: str, default: Any = None) -> Any:
    """A parameter of the loss: an attribute of a module, or a keyword of a functools.partial."""
    if isinstance(loss, functools.partial):
        return loss.keywords.get(name, default)
    return getattr(loss, name, default)


def what_it_reads(loss: Criterion, outputs: Tensor, target: Tensor) -> Reads:
    """Of a known loss by its class; of any other by what it does to outputs (N, ...) of this shape."""
    if isinstance(loss, Loss):
        return _by_probabilities(loss)
    known = _of_torch(loss)
    if known is not None:
        return known
    if isinstance(loss, nn.Module) and type(loss).__module__.startswith("torch.nn."):
        return Reads.UNKNOWN  # torch's others: they take more than two arguments, or targets of a format of their own
    return _by_trial(loss, outputs, target)


def is_known(loss: Criterion) -> bool:
    """Whether what the loss reads is known of its class, and not only tried."""
    return isinstance(loss, Loss) or _of_torch(loss) is not None


def _of_torch(loss: Criterion) -> Reads | None:
    return next((reads for kind, reads in _BY_CLASS.items() if is_a(loss, kind)), None)


def _by_probabilities(loss: Loss) -> Reads:
    outputs = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]])
    probabilities = loss.to_probabilities(outputs)
    if torch.allclose(probabilities, outputs.softmax(1)):
        return Reads.LOGITS
    return Reads.BINARY_LOGITS if torch.allclose(probabilities, outputs.sigmoid()) else Reads.VALUES


def _by_trial(loss: Criterion, outputs: Tensor, target: Tensor) -> Reads:
    """Hold the loss against others on outputs drawn at random: the one that has the same value does the same."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(outputs.shape, generator=random).to(outputs.dtype)
    target = target.cpu()  # where a class that is not there raises and does not end the process's use of the GPU
    if not target.is_floating_point() and outputs.ndim > 1:
        target = target.clamp(0, outputs.shape[1] - 1)
    with torch.no_grad():
        for reads, reference, probe in (
            (Reads.VALUES, F.mse_loss, drawn),
            (Reads.VALUES, F.l1_loss, drawn),
            (Reads.BINARY_LOGITS, F.binary_cross_entropy_with_logits, drawn),
            (Reads.PROBABILITIES, F.binary_cross_entropy, drawn.sigmoid()),
            (Reads.LOG_PROBABILITIES, F.nll_loss, drawn),
            (Reads.LOG_PROBABILITIES, functools.partial(F.kl_div, reduction="batchmean"), drawn),
        ):
            value = _value(loss, probe, target)
            if value is not None and _same(value, _value(reference, probe, _like(target, probe, reference))):
                return reads
        return Reads.LOGITS if _takes_a_softmax(loss, drawn, target) else Reads.UNKNOWN


def _takes_a_softmax(loss: Criterion, drawn: Tensor, target: Tensor) -> bool:
    """Whether a number that is added to all logits of an example changes nothing, and other changes do."""
    if drawn.ndim != 2 or drawn.shape[1] < 2:
        return False
    value, shifted = _value(loss, drawn, target), _value(loss, drawn + 2 * drawn[:, :1].abs() + 1, target)
    other = _value(loss, drawn * 2, target)
    return value is not None and _same(value, shifted) and not _same(value, other)


def _like(target: Tensor, outputs: Tensor, reference: Any) -> Tensor:
    """The target as the reference takes it; the loss itself may convert it."""
    if reference is F.nll_loss:
        return target.long()
    return target.to(outputs.dtype).view_as(outputs) if target.numel() == outputs.numel() else target


def _value(loss: Criterion, outputs: Tensor, target: Tensor) -> Tensor | None:
    try:
        value = loss(outputs, target)
    except Exception:  # noqa: BLE001 -- a stranger's code, which is only asked what it does
        return None
    return value if isinstance(value, Tensor) and value.numel() == 1 and bool(value.isfinite().all()) else None


def _same(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and bool(torch.isclose(value.double(), other.double(), rtol=1e-4, atol=1e-7).all())


def _hashable(function: Any) -> Any:
    return function if function.__hash__ is not None else None


def accepts(loss: Criterion, outputs: Tensor, target: Tensor) -> bool:
    """Whether the loss gives a finite number for these outputs and targets. Asked on the CPU: see `_by_trial`."""
    here = deepcopy(loss).cpu() if isinstance(loss, nn.Module) and target.device.type != "cpu" else loss
    with torch.no_grad():
        return _value(here, outputs.detach().cpu(), target.cpu()) is not None
