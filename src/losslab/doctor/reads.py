"""What a loss takes the outputs for. Known of torch's and this package's losses by their class."""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losslab.doctor.trial import Criterion, Reads, by_trial
from losslab.losses.base import Loss
from losslab.targets import Kind

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
        return _of_losslab(loss, outputs)
    known = _of_torch(loss)
    if known is not None:
        return known
    if isinstance(loss, nn.Module) and type(loss).__module__.startswith("torch.nn."):
        return Reads.UNKNOWN  # torch's others: they take more than two arguments, or targets of a format of their own
    return by_trial(loss, outputs, target)


def is_known(loss: Criterion) -> bool:
    """Whether what the loss reads is known of its class, and not only tried."""
    return isinstance(loss, Loss) or _of_torch(loss) is not None


def _of_torch(loss: Criterion) -> Reads | None:
    return next((reads for kind, reads in _BY_CLASS.items() if is_a(loss, kind)), None)


def _of_losslab(loss: Loss, outputs: Tensor) -> Reads:
    first = loss.wants[0]
    if first is Kind.VALUES:
        return Reads.VALUES  # what it says of probabilities may be the base's softmax, and means nothing
    columns = outputs.shape[1] if outputs.ndim > 1 else 1
    probe = torch.linspace(-2, 3, 2 * columns, device=outputs.device).view(2, columns)
    try:
        probabilities = loss.to_probabilities(probe)
    except Exception:  # noqa: BLE001 -- one's own loss, which need not mean probabilities
        probabilities = probe
    if first is not Kind.BINARY and torch.allclose(probabilities, probe.softmax(1)):
        return Reads.LOGITS
    if torch.allclose(probabilities, probe.sigmoid()):
        return Reads.BINARY_LOGITS
    return Reads.SCORES if Kind.INDEX in loss.wants else Reads.UNKNOWN


def _hashable(function: Any) -> Any:
    return function if function.__hash__ is not None else None
