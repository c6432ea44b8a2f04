"""What a loss takes the outputs for, found out by trying."""

import functools
from collections.abc import Callable
from copy import deepcopy
from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def by_trial(loss: Criterion, outputs: Tensor, target: Tensor) -> Reads:
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
            value = tried(loss, probe, target)
            if value is not None and _same(value, tried(reference, probe, _like(target, probe, reference))):
                return reads
        return Reads.LOGITS if _takes_a_softmax(loss, drawn, target) else Reads.UNKNOWN


def _takes_a_softmax(loss: Criterion, drawn: Tensor, target: Tensor) -> bool:
    """Whether a number that is added to all logits of an example changes nothing, and other changes do."""
    if drawn.ndim != 2 or drawn.shape[1] < 2:
        return False
    value, shifted = tried(loss, drawn, target), tried(loss, drawn + 2 * drawn[:, :1].abs() + 1, target)
    other = tried(loss, drawn * 2, target)
    return value is not None and _same(value, shifted) and not _same(value, other)


def _like(target: Tensor, outputs: Tensor, reference: Any) -> Tensor:
    """The target as the reference takes it; the loss itself may convert it."""
    if reference is F.nll_loss:
        return target.long()
    return target.to(outputs.dtype).view_as(outputs) if target.numel() == outputs.numel() else target


@torch.no_grad()
def tried(loss: Criterion, outputs: Tensor, target: Tensor) -> Tensor | None:
    """The loss of these outputs, if it is one finite number."""
    try:
        value = loss(outputs, target)
    except Exception:  # noqa: BLE001 -- a stranger's code, which is only asked what it does
        return None
    return value if isinstance(value, Tensor) and value.numel() == 1 and bool(value.isfinite().all()) else None


def _same(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and bool(torch.isclose(value.double(), other.double(), rtol=1e-4, atol=1e-7).all())


def accepts(loss: Criterion, outputs: Tensor, target: Tensor) -> bool:
    """Whether the loss gives a finite number for these outputs and targets. Asked on the CPU: see `by_trial`."""
    here = deepcopy(loss).cpu() if isinstance(loss, nn.Module) and target.device.type != "cpu" else loss
    with torch.no_grad():
        return tried(here, outputs.detach().cpu(), target.cpu()) is not None
