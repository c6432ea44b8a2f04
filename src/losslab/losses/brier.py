"""Squared error on probabilities."""

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Slope
from losslab.losses.numerics import log_softmax_tails


class Brier(ClassLoss):
    """Brier score: (1 - p_y)² + Σ_{i≠y} p_i² with p = softmax(z): C times the mean squared error to one-hot targets.

    A soft target costs Σ_k t_k L(z, k), which exceeds the squared distance Σ (p - t)² by 1 - Σ t² and has the same
    gradient. For exclusive classes; a binary problem is a problem with two classes.
    """

    @property
    def card(self) -> Card:
        """Proper and bounded, and therefore not convex in the logits."""
        return Card(
            formula=r"\sum_k (p_k - t_k)^2",
            plain="(1 - p_y)² + Σ_{i≠y} p_i²",
            source="Brier, Verification of forecasts expressed in terms of probability, 1950",
            near=Slope.FADES,
            far=Slope.FADES,
            convex=False,
            high="2",
            uniform="(K - 1) / K",
            shift_invariant=True,
            proper=self.weight is None,
            note="Its gradient fades where the network is confident and wrong: it learns little from wrong labels, and "
            "little after a bad start.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """The cost of each class → (N, C)."""
        log_p, log_rest = log_softmax_tails(outputs)
        squares = (2 * log_p).exp()
        top = log_p.argmax(1, keepdim=True)
        is_top = torch.zeros_like(log_p, dtype=torch.bool).scatter(1, top, value=True)
        # For the largest p the squares of the others are summed directly: as a difference they would cancel.
        without_top = squares.masked_fill(is_top, 0).sum(1, keepdim=True)
        others = torch.where(is_top, without_top, squares.sum(1, keepdim=True) - squares)
        return (2 * log_rest).exp() + others
