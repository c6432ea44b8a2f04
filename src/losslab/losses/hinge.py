"""Hinge losses, which are 0 if the outputs are right by a margin."""

from abc import abstractmethod

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss, SigmoidLoss, mean_over_outputs
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter


class _Margin(SigmoidLoss):
    """A loss of the shortfall: the amount by which an output z is below +1 for a label 1, or above -1 for a label 0."""

    @abstractmethod
    def penalty(self, shortfall: Tensor) -> Tensor:
        """Compute the loss of each shortfall ≥ 0, in the same shape."""

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        positive = self.penalty((1 - outputs).clamp(min=0))
        negative = self.penalty((1 + outputs).clamp(min=0))
        return mean_over_outputs(target * positive + (1 - target) * negative)


class Hinge(_Margin):
    """Hinge loss: max(0, 1 - s z) with the sign s = ±1 of a label 1 or 0, averaged over the outputs.

    This is the loss of support vector machines. It is for binary problems (one output), multi-label problems (K
    outputs), and classes as one-vs-all. Labels are 0 and 1, not ±1; for a label t between 0 and 1 the loss is
    t max(0, 1 - z) + (1 - t) max(0, 1 + z). σ(z) is not an estimate of a probability; it only shows which label is
    predicted: 1 if σ(z) is above 1/2.
    """

    card = Card(
        formula=r"\frac{1}{K} \sum_k \max(0, 1 - s_k z_k) \quad s_k = 2 t_k - 1",
        plain="max(0, 1 - s z), s = 2t - 1, averaged over the outputs",
        source="Cortes & Vapnik, Support-vector networks, 1995",
        near=Slope.ZERO,
        far=Slope.STAYS,
        convex=True,
        uniform="1",
        proper=False,
        note="Examples that are right by a margin of 1 have no gradient. The sign of an output shows which label is "
        "more likely, but not how likely. With classes as one-vs-all, all outputs are negative if no class has a "
        "probability above 1/2.",
    )

    def penalty(self, shortfall: Tensor) -> Tensor:
        return shortfall


class SquaredHinge(_Margin):
    """Squared hinge loss: max(0, 1 - s z)² with the sign s = ±1 of a label 1 or 0, averaged over the outputs.

    It is like `Hinge`, but smooth, and its outputs estimate 2 P(t = 1) - 1.
    """

    card = Card(
        formula=r"\frac{1}{K} \sum_k \max(0, 1 - s_k z_k)^2 \quad s_k = 2 t_k - 1",
        plain="max(0, 1 - s z)², s = 2t - 1, averaged over the outputs",
        source="Zhang, Statistical behavior and consistency of classification methods based on convex risk "
        "minimization, 2004",
        near=Slope.ZERO,
        far=Slope.GROWS,
        convex=True,
        uniform="1",
        proper=True,
        note="Examples that are right by a margin of 1 have no gradient. The gradient of wrong examples grows with "
        "their distance from the margin.",
    )

    def penalty(self, shortfall: Tensor) -> Tensor:
        return shortfall.square()

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Return the probability of label 1 at which z minimises the expected loss: (z + 1)/2 (N, K), in [ε, 1]."""
        return ((outputs + 1) / 2).clamp(torch.finfo(torch.float32).eps, 1.0)

    def to_logits(self, outputs: Tensor) -> None:
        """Return None: the probability is linear in the outputs."""


class MultiMargin(ClassLoss):
    """Multi-class margin loss: (1/C) Σ_{i≠y} max(0, m - z_y + z_i)^p, times the weight of the class.

    The loss is 0 if the output of the label exceeds every other output by m. As in torch.nn.MultiMarginLoss, which
    allows only p = 1 and p = 2, the mean is the sum divided by N even with class weights. A soft target needs C times
    the memory, because all pairs of classes are compared.
    """

    p: float | Tensor = hyperparameter(
        "p, the power of the missing margin", "[1, 2]", "torch.nn.MultiMarginLoss", (1.0, 1.5, 2.0), default=1.0
    )
    margin: float | Tensor = hyperparameter(
        "m, the required margin", "(0, inf)", "torch.nn.MultiMarginLoss", (0.5, 1.0, 3.0), default=1.0
    )

    @property
    def card(self) -> Card:
        return Card(
            formula=r"\frac{1}{K} \sum_{i \ne y} \max(0, m - z_y + z_i)^p",
            plain="(1/K) Σ_{i≠y} max(0, m - z_y + z_i)^p",
            source="Weston & Watkins, Support vector machines for multi-class pattern recognition, 1999",
            near=Slope.ZERO,
            far=Slope.STAYS if float(self.p) == 1 else Slope.GROWS,
            convex=True,
            uniform="margin**p * (K - 1) / K",
            shift_invariant=True,
            proper=False,
            note="Examples with a margin of m to every other class have no gradient. The probabilities are the softmax "
            "of the outputs: only their order has a meaning.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """Compute the costs (N, C) from an intermediate tensor (N, C, C)."""
        is_label = torch.eye(outputs.shape[1], dtype=torch.bool, device=outputs.device)
        return self._cost(outputs.unsqueeze(2), outputs.unsqueeze(1), is_label)

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        if target.dtype.is_floating_point:
            return super().score(outputs, target)
        label = target.where(target != self.ignore_index, 0).unsqueeze(1)
        is_label = label == torch.arange(outputs.shape[1], device=outputs.device)
        costs = self._cost(outputs.gather(1, label), outputs, is_label)
        return self.pick(self.weighted(costs.unsqueeze(1).expand_as(outputs)), target)

    def example_weight(self, target: Tensor) -> Tensor:
        """Return weights (N,): 0 if the target is ignored, else 1, even with class weights."""
        if target.dtype.is_floating_point:
            return super().example_weight(target)
        return (target != self.ignore_index).float()

    def _cost(self, z_y: Tensor, outputs: Tensor, is_label: Tensor) -> Tensor:
        """Return (1/C) Σ_{i≠y} max(0, m - z_y + z_i)^p; the outputs z_i are in the last dimension."""
        penalties = (self.margin - z_y + outputs).clamp(min=0) ** self.p
        return penalties.masked_fill(is_label, 0).mean(-1)
