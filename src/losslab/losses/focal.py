"""Focal loss."""

from typing import ClassVar

import torch
from torch import Tensor

from losslab.losses.base import Loss, at_least
from losslab.targets import Kind


class Focal(Loss):
    """Focal loss on softmax probabilities: -Σ_k t_k (1 - p_k)^γ log p_k; for a class index, -(1 - p_y)^γ log p_y.

    Turns down the examples the network is already sure of. γ = 0 is cross-entropy. Lin et al., "Focal loss for dense
    object detection", 2017, in its multi-class form.

    Args:
        gamma: γ ≥ 0; the paper's choice is 2.
    """

    wants: ClassVar[tuple[Kind, ...]] = (Kind.INDEX, Kind.PROBABILITIES)
    gamma: float | Tensor

    def __init__(self, gamma: float | Tensor = 2.0) -> None:
        super().__init__()
        self.hold("gamma", at_least("focal's gamma", gamma, 0.0))

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) or (N, C) → (N,)."""
        log_p = torch.log_softmax(outputs, dim=1)
        # A power of 1 - p has an infinite slope at p = 1 for γ < 1, and 1 - p itself rounds to 0 long before the
        # exact loss does. As exp(γ log(1 - p)) with an exact log(1 - p), value and gradient stay finite.
        losses = -torch.exp(self.gamma * log_complement(outputs, log_p)) * log_p
        if target.dtype.is_floating_point:
            return (target * losses).sum(1)
        return losses.gather(1, target.unsqueeze(1)).squeeze(1)


def log_complement(outputs: Tensor, log_p: Tensor) -> Tensor:
    """log(1 - p) for p = softmax(outputs), exact also where p rounds to 1 → (N, C).

    All but the largest p are at most 1/2, where log1p(-p) is exact. For the largest, 1 - p is the sum of the others.
    """
    top = outputs.argmax(1, keepdim=True)
    is_top = torch.zeros_like(outputs, dtype=torch.bool).scatter(1, top, value=True)
    others = torch.logsumexp(outputs.masked_fill(is_top, -torch.inf), dim=1, keepdim=True)
    all_of_them = torch.logsumexp(outputs, dim=1, keepdim=True)
    # where() differentiates both sides: the side not taken must be finite too, or its NaN would spread.
    small = torch.log1p(-log_p.masked_fill(is_top, -torch.inf).exp())
    return torch.where(is_top, others - all_of_them, small)
