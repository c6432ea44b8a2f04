"""Multi-class margin loss."""

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter


class MultiMargin(ClassLoss):
    """Multi-class margin loss: (1/C) Σ_{i≠y} max(0, m - z_y + z_i)^p, times the weight of the class.

    The label's output must exceed every other by m. Equals torch.nn.MultiMarginLoss (which allows p = 1 and 2 only):
    the mean divides by N even with class weights. Soft targets compare all pairs of classes and take C times the
    memory.
    """

    p: float | Tensor = hyperparameter(
        "p, the power of the shortfall", "[1, 2]", "torch.nn.MultiMarginLoss", (1.0, 1.5, 2.0), default=1.0
    )
    margin: float | Tensor = hyperparameter(
        "m, the required lead", "(0, inf)", "torch.nn.MultiMarginLoss", (0.5, 1.0, 3.0), default=1.0
    )

    @property
    def card(self) -> Card:
        """Straight lines at p = 1, parabolas at p = 2."""
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
            note="Examples with a lead of m over every other class teach nothing. The probabilities are the softmax of "
            "scores: only their order is meaningful.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """The cost of each class → (N, C), through an intermediate (N, C, C)."""
        own = torch.eye(outputs.shape[1], dtype=torch.bool, device=outputs.device)
        return self._cost(outputs.unsqueeze(2), outputs.unsqueeze(1), own)

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) or (N, C) → (N,)."""
        if target.dtype.is_floating_point:
            return super().score(outputs, target)
        label = target.where(target != self.ignore_index, 0).unsqueeze(1)
        own = label == torch.arange(outputs.shape[1], device=outputs.device)
        costs = self._cost(outputs.gather(1, label), outputs, own)
        return self.pick(self.weighted(costs.unsqueeze(1).expand_as(outputs)), target)

    def example_weight(self, target: Tensor) -> Tensor:
        """1 regardless of class weights; 0 where ignored → (N,)."""
        if target.dtype.is_floating_point:
            return super().example_weight(target)
        return (target != self.ignore_index).float()

    def _cost(self, label: Tensor, outputs: Tensor, own: Tensor) -> Tensor:
        """(1/C) Σ_i max(0, m - label + outputs_i)^p over the last dimension, without i where `own` is true."""
        shortfall = (self.margin - label + outputs).clamp(min=0) ** self.p
        return shortfall.masked_fill(own, 0).mean(-1)
