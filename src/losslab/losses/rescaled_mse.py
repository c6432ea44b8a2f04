"""Squared error on the logits of a classifier."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.class_weights import WeightRule


class RescaledMSE(ClassLoss):
    """Rescaled squared error on logits: (1/C) (k (z_y - M)² + Σ_{i≠y} z_i²).

    At k = M = 1 the squared error between the logits and one-hot targets. With many classes the zeros outweigh the one:
    k and M make up for it.

    Args:
        k: how much more the label's output counts than each of the others.
        m: M, what the label's output should be.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "k": Parameter(
            "k, the weight of the label's output",
            "(0, inf)",
            "the paper's for fewer than 42 classes; 15 for ImageNet's 1000",
            (1.0, 5.0, 15.0),
        ),
        "m": Parameter(
            "M, the target of the label's output",
            "(0, inf)",
            "the paper's for fewer than 42 classes; 15 from 42 on, 30 for ImageNet's 1000",
            (1.0, 15.0, 30.0),
        ),
    }
    k: float | Tensor
    m: float | Tensor

    def __init__(
        self,
        k: float | Tensor = 1.0,
        m: float | Tensor = 1.0,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.set_hyperparameter("k", k)
        self.set_hyperparameter("m", m)

    @property
    def card(self) -> Card:
        """A parabola in each output."""
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
            note="An output beyond M is pulled back as hard as one that falls short. The gradient grows with k and M, "
            "and so must the learning rate shrink.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """What each class would cost → (N, C)."""
        squares = outputs.square()
        # As k (z - M)² - z² would cancel, the others' squares are summed without it: from the left and from the right.
        # Not as a product of matrices, which autocast takes in half precision.
        none = torch.zeros_like(squares[:, :1])
        left = torch.cat([none, squares[:, :-1]], 1).cumsum(1)
        right = torch.cat([squares[:, 1:], none], 1).flip(1).cumsum(1).flip(1)
        others = left + right
        return (self.k * (outputs - self.m).square() + others) / outputs.shape[1]

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """The q whose expected loss is least at z = q k M / (q k + 1 - q), kept inside [ε, 1] → (N, C).

        z/M at k = 1. Rows need not sum to 1: the metrics of exclusive classes normalise them.
        """
        share = (outputs / self.m).clamp(0, 1)
        return (share / (self.k * (1 - share) + share)).clamp(min=torch.finfo(torch.float32).eps)
