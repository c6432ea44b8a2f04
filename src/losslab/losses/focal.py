"""Focal loss."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.class_weights import WeightRule
from losslab.losses.numerics import log_softmax_tails


class Focal(ClassLoss):
    """Focal loss on softmax probabilities: -Σ_k t_k (1 - p_k)^γ log p_k; for a class index, -(1 - p_y)^γ log p_y.

    Turns down the examples the network is already sure of. γ = 0 is cross-entropy.

    Args:
        gamma: γ, how much.
        weight: one weight a class (C,), or a rule that makes them of the class counts: the paper's α.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "gamma": Parameter(
            "γ, how much sure examples are turned down", "[0, inf)", "the paper's", (0.0, 0.5, 2.0, 5.0)
        ),
    }
    gamma: float | Tensor

    def __init__(
        self,
        gamma: float | Tensor = 2.0,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.set_hyperparameter("gamma", gamma)

    @property
    def card(self) -> Card:
        """Cross-entropy at γ = 0, and neither convex nor proper above."""
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
            note="Its gradient is smaller than cross-entropy's on easy examples, so at one rate it learns more "
            "slowly. Its probabilities are less sure than the truth.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """-(1 - p_k)^γ log p_k → (N, C)."""
        # A power of 1 - p has an infinite slope at p = 1 for γ < 1, and 1 - p itself rounds to 0 long before the
        # exact loss does. As exp(γ log(1 - p)) with an exact log(1 - p), value and gradient stay finite.
        log_p, log_rest = log_softmax_tails(outputs)
        return -torch.exp(self.gamma * log_rest) * log_p
