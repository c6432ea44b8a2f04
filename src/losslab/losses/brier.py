"""Squared errors of a classifier: on its probabilities (Brier score) and on its logits."""

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import BoundedCard, Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import log_softmax_tails, sum_of_others


class Brier(ClassLoss):
    """Brier score: (1 - p_y)² + Σ_{i≠y} p_i² with p = softmax(z): C times the mean squared error to one-hot targets.

    A soft target costs Σ_k t_k L(z, k), which exceeds the squared distance Σ (p - t)² by 1 - Σ t² and has the same
    gradient. For exclusive classes; a binary problem is a problem with two classes.
    """

    @property
    def card(self) -> Card:
        return BoundedCard(
            formula=r"\sum_k (p_k - t_k)^2",
            plain="(1 - p_y)² + Σ_{i≠y} p_i²",
            source="Brier, Verification of forecasts expressed in terms of probability, 1950",
            high="2",
            uniform="(K - 1) / K",
            proper=self.weight is None,
            note="Its gradient fades where the network is confident and wrong: it learns little from wrong labels, and "
            "little after a bad start.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        log_p, log_rest = log_softmax_tails(outputs)
        return (2 * log_rest).exp() + sum_of_others((2 * log_p).exp())


class RescaledMSE(ClassLoss):
    """Rescaled squared error on logits: (1/C) (k (z_y - M)² + Σ_{i≠y} z_i²).

    At k = M = 1 it is the squared error between the logits and one-hot targets. With many classes the zeros outweigh
    the one; k and M compensate for that.
    """

    k: float | Tensor = hyperparameter(
        "k, the weight of the label's output relative to each other output",
        "(0, inf)",
        "the paper's for fewer than 42 classes; 15 for ImageNet's 1000",
        (1.0, 5.0, 15.0),
        default=1.0,
    )
    m: float | Tensor = hyperparameter(
        "M, the target of the label's output",
        "(0, inf)",
        "the paper's for fewer than 42 classes; 15 from 42 on, 30 for ImageNet's 1000",
        (1.0, 15.0, 30.0),
        default=1.0,
    )

    @property
    def card(self) -> Card:
        return Card(
            formula=r"\frac{1}{K} \Bigl(k (z_y - M)^2 + \sum_{i \ne y} z_i^2\Bigr)",
            plain="(1/K) (k (z_y - M)² + Σ_{i≠y} z_i²)",
            source="Hui & Belkin, Evaluation of neural architectures trained with square loss vs cross-entropy in "
            "classification tasks, 2021",
            near=Slope.GROWS,
            far=Slope.GROWS,
            convex=True,
            uniform="k * m**2 / K",
            proper=self.weight is None,
            note="An output beyond M costs as much as one that falls short. The gradient grows with k and M, so the "
            "learning rate must shrink.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        squares = outputs.square()
        # The squares of the other outputs are summed from the left and from the right: total - z² would cancel, and a
        # matrix product would be computed in half precision under autocast.
        zero = torch.zeros_like(squares[:, :1])
        left = torch.cat([zero, squares[:, :-1]], 1).cumsum(1)
        right = torch.cat([squares[:, 1:], zero], 1).flip(1).cumsum(1).flip(1)
        others = left + right
        return (self.k * (outputs - self.m).square() + others) / outputs.shape[1]

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """The q whose expected loss has its minimum at z = q k M / (q k + 1 - q), clamped to [ε, 1] → (N, C).

        z/M at k = 1. Rows need not sum to 1: the metrics of exclusive classes normalise them.
        """
        share = (outputs / self.m).clamp(0, 1)
        return (share / (self.k * (1 - share) + share)).clamp(min=torch.finfo(torch.float32).eps)
