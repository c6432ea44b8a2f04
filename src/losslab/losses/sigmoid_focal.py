"""Focal loss on sigmoids."""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.losses.base import Loss, mean_over_outputs
from losslab.losses.card import Card, Parameter, Slope
from losslab.targets import Kind


class SigmoidFocal(Loss):
    """Focal loss of independent labels: -α (1 - p)^γ log p for a 1, -(1 - α) p^γ log(1 - p) for a 0, p = σ(z).

    Averaged over the outputs: torchvision's sigmoid_focal_loss with reduction="mean". Object detectors take its sum,
    divided by the number of positive anchors. For a binary problem, several labels at once, and classes as one-vs-all.
    A label t in between costs the mixture of both.

    Args:
        alpha: α, the share of positive labels in the weight; at 1/2 both count half.
        gamma: γ, how much sure outputs are turned down.
    """

    wants: tuple[Kind, ...] = (Kind.BINARY, Kind.PROBABILITIES)
    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "alpha": Parameter("α, the weight of a positive label", "(0, 1)", "the paper's", (0.25, 0.5, 0.75)),
        "gamma": Parameter("γ, how much sure outputs are turned down", "[0, inf)", "the paper's", (0.0, 0.5, 2.0, 5.0)),
    }
    alpha: float | Tensor
    gamma: float | Tensor

    def __init__(self, alpha: float | Tensor = 0.25, gamma: float | Tensor = 2.0) -> None:
        super().__init__()
        self.set_hyperparameter("alpha", alpha)
        self.set_hyperparameter("gamma", gamma)

    @property
    def card(self) -> Card:
        """Binary cross-entropy, weighted, at γ = 0, and neither convex nor proper above."""
        plain = float(self.gamma) == 0
        return Card(
            formula=r"\frac{1}{K} \sum_k -\alpha t_k (1 - p_k)^\gamma \log p_k"
            r" - (1 - \alpha) (1 - t_k)\, p_k^\gamma \log(1 - p_k) \quad p = \sigma(z)",
            plain="-α t (1 - p)^γ log p - (1 - α) (1 - t) p^γ log(1 - p), p = σ(z), mean over the outputs",
            source="Lin et al., Focal loss for dense object detection, 2017",
            near=Slope.FADES,
            far=Slope.STAYS,
            convex=plain,
            uniform="(alpha + (K - 1) * (1 - alpha)) * 2**(-gamma) * log(2) / K",
            proper=plain and float(self.alpha) == 0.5,
            note="The paper starts the last bias at -log 99, for the many easy negatives not to drown the positives. α "
            "goes with γ: the larger γ, the smaller the best α. Its probabilities are less sure than the truth.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, K), (N, K) → (N,)."""
        yes, no = F.logsigmoid(outputs), F.logsigmoid(-outputs)
        # A power of p has an infinite slope at p = 0 for γ < 1; as exp(γ log p) it has not.
        positive = self.alpha * target * torch.exp(self.gamma * no) * yes
        negative = (1 - self.alpha) * (1 - target) * torch.exp(self.gamma * yes) * no
        return mean_over_outputs(-positive - negative)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """σ(z), one independent probability a column → (N, K)."""
        return torch.sigmoid(outputs)
