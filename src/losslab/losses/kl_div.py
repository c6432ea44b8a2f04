"""Kullback-Leibler divergence from soft targets."""

import torch
from torch import Tensor

from losslab.losses.base import Loss
from losslab.losses.card import Card, Slope
from losslab.targets import Kind


class KLDiv(Loss):
    """Kullback-Leibler divergence KL(t ‖ p) = Σ_k t_k log(t_k / p_k) with p = softmax(z).

    Cross-entropy minus the entropy of the target: the same gradients, and 0 at p = t. Takes logits and averages over
    examples (torch's "batchmean"), never over elements.
    """

    wants = (Kind.PROBABILITIES,)

    @property
    def card(self) -> Card:
        """Cross-entropy's facts, on a one-hot target."""
        return Card(
            formula=r"\sum_k t_k \log \frac{t_k}{p_k}",
            plain="Σ_k t_k log(t_k / p_k)",
            source="Kullback & Leibler, On information and sufficiency, 1951",
            near=Slope.FADES,
            far=Slope.STAYS,
            convex=True,
            uniform="log(K)",
            shift_invariant=True,
            proper=True,
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) → (N,)."""
        # Not F.kl_div, which fails under torch.func.vmap. xlogy defines 0 log 0 as 0.
        return (torch.xlogy(target, target) - target * torch.log_softmax(outputs, dim=1)).sum(1)
