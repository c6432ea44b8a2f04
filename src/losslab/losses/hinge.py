"""Hinge losses, which are 0 beyond a margin."""

from abc import abstractmethod

import torch
from torch import Tensor

from losslab.losses.base import Loss, mean_over_outputs
from losslab.losses.card import Card, Slope
from losslab.targets import Kind


class _Margin(Loss):
    """A loss of the amount by which an output z falls short of +1 for a label 1, or exceeds -1 for a label 0."""

    wants = (Kind.BINARY, Kind.PROBABILITIES)

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

    The loss of support vector machines. For binary problems (one output), multi-label problems (K outputs), and classes
    as one-vs-all. Labels are 0 and 1, not ±1. A label t between them costs t max(0, 1 - z) + (1 - t) max(0, 1 + z).
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
            note="Examples that are right by a margin of 1 teach nothing. Its outputs tell which label is more likely, "
            "but not how likely. One-vs-all, all outputs are negative where no class has more than half of the cases.",
        )

    def penalty(self, shortfall: Tensor) -> Tensor:
        """The shortfall itself."""
        return shortfall

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """σ(z), which is no estimate of a probability, but above 1/2 where the decision is 1 → (N, K)."""
        return torch.sigmoid(outputs)


class SquaredHinge(_Margin):
    """Squared hinge loss: max(0, 1 - s z)² with the sign s = ±1 of a label 1 or 0, averaged over the outputs.

    Like `Hinge`, but smooth: its outputs estimate 2 P(t = 1) - 1.
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
            note="Examples that are right by a margin of 1 teach nothing. The gradient of wrong ones grows with their "
            "distance.",
        )

    def penalty(self, shortfall: Tensor) -> Tensor:
        """Its square."""
        return shortfall.square()

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """(z + 1)/2, the probability of 1 at the minimum of the expected loss, clamped to [ε, 1] → (N, K)."""
        return ((outputs + 1) / 2).clamp(torch.finfo(torch.float32).eps, 1.0)
