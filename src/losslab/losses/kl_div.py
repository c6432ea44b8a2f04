"""Kullback-Leibler divergence to soft targets."""

import torch
from torch import Tensor

from losslab.losses.base import Loss
from losslab.losses.card import Card, Slope
from losslab.targets import Kind


class KLDiv(Loss):
    """Kullback-Leibler divergence KL(t ‖ p) = Σ_k t_k log(t_k / p_k) with p = softmax(z).

    Cross-entropy less the entropy of the target: the same gradients, and 0 where p = t. Takes logits and averages
    over examples (torch's "batchmean"), never over elements.
    """

    wants: tuple[Kind, ...] = (Kind.PROBABILITIES,)

    @property
    def card(self) -> Card:
        """Cross-entropy's, on a one-hot target."""
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
        # Not F.kl_div, which torch.func.vmap cannot map. xlogy knows that 0 log 0 is 0.
        return (torch.xlogy(target, target) - target * torch.log_softmax(outputs, dim=1)).sum(1)
