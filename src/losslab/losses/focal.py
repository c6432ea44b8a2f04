"""The focal loss on softmax probabilities and on sigmoid probabilities."""

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.losses.base import ClassLoss, SigmoidLoss, mean_over_outputs
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import log_softmax_tails


class Focal(ClassLoss):
    """Focal loss on softmax probabilities: -Σ_k t_k (1 - p_k)^γ log p_k; for a class index, -(1 - p_y)^γ log p_y.

    Examples with a large p_y count less. At γ = 0 it is cross-entropy. The class weights are the paper's α.
    """

    gamma: float | Tensor = hyperparameter(
        "γ, how strongly easy examples are down-weighted", "[0, inf)", "the paper's", (0.0, 0.5, 2.0, 5.0), default=2.0
    )

    @property
    def card(self) -> Card:
        is_cross_entropy = float(self.gamma) == 0
        return Card(
            formula=r"-(1 - p_y)^\gamma \log p_y",
            plain="-(1 - p_y)^γ log p_y",
            source="Lin et al., Focal loss for dense object detection, 2017, in its multi-class form",
            far=Slope.STAYS,
            convex=is_cross_entropy,
            uniform="((K - 1) / K) ** gamma * log(K)",
            shift_invariant=True,
            proper=is_cross_entropy and self.weight is None,
            note="Its gradient on easy examples is smaller than that of cross-entropy, so at the same learning rate "
            "training is slower. Its probabilities are underconfident.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        # For γ < 1, (1 - p)^γ has an infinite slope at p = 1, and 1 - p rounds to 0 where the exact loss is not yet 0.
        # In the form exp(γ log(1 - p)) with an exact log(1 - p), value and gradient are finite.
        log_p, log_one_minus_p = log_softmax_tails(outputs)
        return -torch.exp(self.gamma * log_one_minus_p) * log_p


class SigmoidFocal(SigmoidLoss):
    """Focal loss of independent labels: -α (1 - p)^γ log p for a 1, -(1 - α) p^γ log(1 - p) for a 0, p = σ(z).

    It is averaged over the outputs, like torchvision's sigmoid_focal_loss with reduction="mean"; object detectors
    divide the sum by the number of positive anchors instead. It is for binary and multi-label problems, and classes as
    one-vs-all. A label t between 0 and 1 gives the mean of both cases, weighted by t and 1 - t.
    """

    alpha: float | Tensor = hyperparameter(
        "α, the weight of a positive label; a negative label has 1 - α",
        "(0, 1)",
        "the paper's",
        (0.25, 0.5, 0.75),
        default=0.25,
    )
    gamma: float | Tensor = hyperparameter(
        "γ, how strongly easy outputs are down-weighted", "[0, inf)", "the paper's", (0.0, 0.5, 2.0, 5.0), default=2.0
    )

    @property
    def card(self) -> Card:
        is_cross_entropy = float(self.gamma) == 0  # multiplied by α and 1 - α
        return Card(
            formula=r"\frac{1}{K} \sum_k -\alpha t_k (1 - p_k)^\gamma \log p_k"
            r" - (1 - \alpha) (1 - t_k)\, p_k^\gamma \log(1 - p_k) \quad p = \sigma(z)",
            plain="-α t (1 - p)^γ log p - (1 - α) (1 - t) p^γ log(1 - p), p = σ(z), averaged over the outputs",
            source="Lin et al., Focal loss for dense object detection, 2017",
            far=Slope.STAYS,
            convex=is_cross_entropy,
            uniform="(alpha + (K - 1) * (1 - alpha)) * 2**(-gamma) * log(2) / K",
            proper=is_cross_entropy and float(self.alpha) == 0.5,
            note="The paper initialises the last bias to -log 99, so that the many easy negatives do not dominate. The "
            "best α is smaller if γ is larger. Its probabilities are underconfident.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        log_p, log_one_minus_p = F.logsigmoid(outputs), F.logsigmoid(-outputs)
        # For γ < 1, p^γ has an infinite slope at p = 0, but its form exp(γ log p) has a finite gradient.
        positive = self.alpha * target * torch.exp(self.gamma * log_one_minus_p) * log_p
        negative = (1 - self.alpha) * (1 - target) * torch.exp(self.gamma * log_p) * log_one_minus_p
        return mean_over_outputs(-positive - negative)
