"""Multi-class margin loss."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.class_weights import WeightRule


class MultiMargin(ClassLoss):
    """Multi-class margin loss: (1/C) Σ_{i≠y} max(0, m - z_y + z_i)^p, times the weight of the class.

    The label's output must exceed every other by m. Equals torch.nn.MultiMarginLoss, whose mean divides by N, weights
    or not, and which knows p = 1 and 2 only. Soft targets compare all pairs of classes, and take C times the memory.

    Args:
        p: the power.
        margin: m.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "p": Parameter("p, the power of what is missing", "[1, 2]", "torch.nn.MultiMarginLoss", (1.0, 1.5, 2.0)),
        "margin": Parameter("m, the lead that is enough", "(0, inf)", "torch.nn.MultiMarginLoss", (0.5, 1.0, 3.0)),
    }
    p: float | Tensor
    margin: float | Tensor

    def __init__(
        self,
        p: float | Tensor = 1.0,
        margin: float | Tensor = 1.0,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.set_hyperparameter("p", p)
        self.set_hyperparameter("margin", margin)

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
            note="A lead of m over every other class is enough: such examples teach nothing. The probabilities are the "
            "softmax of scores, and mean no more than their order.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """What each class would cost → (N, C), by way of (N, C, C)."""
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
        """1, whatever the weight of the class; 0 where ignored → (N,)."""
        if target.dtype.is_floating_point:
            return super().example_weight(target)
        return (target != self.ignore_index).float()

    def _cost(self, label: Tensor, outputs: Tensor, own: Tensor) -> Tensor:
        """(1/C) Σ_i max(0, m - label + outputs_i)^p over the last dimension, but for i where it is the label's own."""
        missing = (self.margin - label + outputs).clamp(min=0) ** self.p
        return missing.masked_fill(own, 0).mean(-1)
