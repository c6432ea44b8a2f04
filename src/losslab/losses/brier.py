"""Squared errors of a classifier: on its probabilities (the Brier score) and on its logits."""

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import BoundedCard, Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import log_softmax_tails, sum_of_others


class Brier(ClassLoss):
    """Brier score: (1 - p_y)² + Σ_{i≠y} p_i² with p = softmax(z), C times the mean squared error to one-hot targets.

    With a soft target it is the expected loss Σ_k t_k L(z, k). This exceeds the squared distance Σ (p - t)² by
    1 - Σ t², and has the same gradient. Classes are exclusive; a binary problem has two classes.
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
            note="Its gradient fades to 0 where the network is confident and wrong. So wrong labels have little "
            "influence, and training hardly recovers from a bad start.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        log_p, log_rest = log_softmax_tails(outputs)
        return (2 * log_rest).exp() + sum_of_others((2 * log_p).exp())


class RescaledMSE(ClassLoss):
    """Rescaled squared error on logits: (1/C) (k (z_y - M)² + Σ_{i≠y} z_i²).

    At k = M = 1 it is the squared error between the logits and one-hot targets. With many classes the targets of 0
    outweigh the target of 1; k and M compensate for that.
    """

    k: float | Tensor = hyperparameter(
        "k, the weight of the output of the label, relative to every other output",
        "(0, inf)",
        "the paper's for fewer than 42 classes; 15 for the 1000 of ImageNet",
        (1.0, 5.0, 15.0),
        default=1.0,
    )
    m: float | Tensor = hyperparameter(
        "M, the target of the output of the label",
        "(0, inf)",
        "the paper's for fewer than 42 classes; 15 from 42, 30 for the 1000 of ImageNet",
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
            note="An output above M has the same loss as an output equally far below. The gradient is larger at larger "
            "k and M, so the learning rate must be smaller.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        squares = outputs.square()
        # The squares of the other outputs are summed from the left and from the right, because total - z² would cancel,
        # and a matrix product would run in half precision under autocast.
        zero = torch.zeros_like(squares[:, :1])
        left = torch.cat([zero, squares[:, :-1]], 1).cumsum(1)
        right = torch.cat([squares[:, 1:], zero], 1).flip(1).cumsum(1).flip(1)
        others = left + right
        return (self.k * (outputs - self.m).square() + others) / outputs.shape[1]

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """The q that solves z = q k M / (q k + 1 - q), the minimum of the expected loss, clamped to [ε, 1] → (N, C).

        At k = 1 it is z/M. Rows need not sum to 1: the metrics of exclusive classes normalise them.
        """
        share = (outputs / self.m).clamp(0, 1)
        return (share / (self.k * (1 - share) + share)).clamp(min=torch.finfo(torch.float32).eps)
