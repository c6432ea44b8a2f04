"""Hinge losses: no cost beyond a margin."""

from abc import abstractmethod

import torch
from torch import Tensor

from losslab.losses.base import Loss, mean_over_outputs
from losslab.losses.card import Card, Slope
from losslab.targets import Kind


class _Margin(Loss):
    """A loss of how far an output z falls short of +1 for a label 1, or of -1 for a label 0."""

    wants: tuple[Kind, ...] = (Kind.BINARY, Kind.PROBABILITIES)

    @abstractmethod
    def penalty(self, shortfall: Tensor) -> Tensor:
        """The cost of each shortfall ≥ 0 → the same shape."""

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, K), (N, K) → (N,)."""
        positive = self.penalty((1 - outputs).clamp(min=0))
        negative = self.penalty((1 + outputs).clamp(min=0))
        return mean_over_outputs(target * positive + (1 - target) * negative)


class Hinge(_Margin):
    """Hinge loss: max(0, 1 - s z) with the sign s = ±1 of a label 1 or 0, averaged over the outputs.

    The loss of support vector machines. For a binary problem (one output), several labels at once (K outputs), and
    classes as one-vs-all. Labels are 0 and 1: the signs are made here. A label t in between costs
    t max(0, 1 - z) + (1 - t) max(0, 1 + z).
    """

    @property
    def card(self) -> Card:
        """Two straight lines."""
        return Card(
            formula=r"\frac{1}{K} \sum_k \max(0, 1 - s_k z_k) \quad s_k = 2 t_k - 1",
            plain="max(0, 1 - s z), s = 2t - 1, mean over the outputs",
            source="Cortes & Vapnik, Support-vector networks, 1995",
            near=Slope.ZERO,
            far=Slope.STAYS,
            convex=True,
            uniform="1",
            proper=False,
            note="Right by the margin of 1 is enough: such examples teach nothing. Its outputs tell the likelier label "
            "and not how likely it is. One-vs-all, no class wins the majority where none has more than half of the "
            "cases.",
        )

    def penalty(self, shortfall: Tensor) -> Tensor:
        """The shortfall itself."""
        return shortfall

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """σ(z) for want of better: above 1/2 where the decision is 1 → (N, K)."""
        return torch.sigmoid(outputs)


class SquaredHinge(_Margin):
    """Squared hinge loss: max(0, 1 - s z)² with the sign s = ±1 of a label 1 or 0, averaged over the outputs.

    As `Hinge`, and smooth: its outputs estimate 2 P(t = 1) - 1.
    """

    @property
    def card(self) -> Card:
        """Half a parabola."""
        return Card(
            formula=r"\frac{1}{K} \sum_k \max(0, 1 - s_k z_k)^2 \quad s_k = 2 t_k - 1",
            plain="max(0, 1 - s z)², s = 2t - 1, mean over the outputs",
            source="Zhang, Statistical behavior and consistency of classification methods based on convex risk "
            "minimization, 2004",
            near=Slope.ZERO,
            far=Slope.GROWS,
            convex=True,
            uniform="1",
            proper=True,
            note="Right by the margin of 1 is enough: such examples teach nothing. Wrong ones pull as hard as they are "
            "far away.",
        )

    def penalty(self, shortfall: Tensor) -> Tensor:
        """Its square."""
        return shortfall.square()

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """(z + 1)/2, which least expected loss makes the probability of 1, kept inside [ε, 1] → (N, K)."""
        return ((outputs + 1) / 2).clamp(torch.finfo(torch.float32).eps, 1.0)
