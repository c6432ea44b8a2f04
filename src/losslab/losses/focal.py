"""Focal loss."""

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import log_softmax_tails


class Focal(ClassLoss):
    """Focal loss on softmax probabilities: -Σ_k t_k (1 - p_k)^γ log p_k; for a class index, -(1 - p_y)^γ log p_y.

    Examples of which the network is already sure count less. γ = 0 is cross-entropy. `weight` is the paper's α.
    """

    gamma: float | Tensor = hyperparameter(
        "γ, how strongly easy examples are down-weighted", "[0, inf)", "the paper's", (0.0, 0.5, 2.0, 5.0), default=2.0
    )

    @property
    def card(self) -> Card:
        """Cross-entropy at γ = 0; neither convex nor proper for γ > 0."""
        plain = float(self.gamma) == 0
        return Card(
            formula=r"-(1 - p_y)^\gamma \log p_y",
            plain="-(1 - p_y)^γ log p_y",
            source="Lin et al., Focal loss for dense object detection, 2017, in its multi-class form",
            near=Slope.FADES,
            far=Slope.STAYS,
            convex=plain,
            uniform="((K - 1) / K) ** gamma * log(K)",
            shift_invariant=True,
            proper=plain and self.weight is None,
            note="Its gradient is smaller than cross-entropy's on easy examples, so at the same learning rate it "
            "learns more slowly. Its probabilities are underconfident.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """-(1 - p_k)^γ log p_k → (N, C)."""
        # For γ < 1 a power of 1 - p has an infinite slope at p = 1, and 1 - p rounds to 0 long before the exact loss
        # does. Written as exp(γ log(1 - p)) with an exact log(1 - p), value and gradient stay finite.
        log_p, log_rest = log_softmax_tails(outputs)
        return -torch.exp(self.gamma * log_rest) * log_p
