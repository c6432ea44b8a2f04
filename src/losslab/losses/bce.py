"""Binary cross-entropy on logits, and a form for one-vs-all labels of many classes."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.errors import LabError
from losslab.losses.base import SigmoidLoss, class_weight_tensor, mean_over_outputs
from losslab.losses.card import Card, Slope


class BCE(SigmoidLoss):
    """Binary cross-entropy on logits: -w t log σ(z) - (1 - t) log(1 - σ(z)), averaged over the outputs.

    It is for binary problems (one logit), multi-label problems (K logits), and classes as one-vs-all (C logits; a
    class index becomes C labels of 0 and 1). F.binary_cross_entropy_with_logits computes it, stable at all logits.

    Args:
        pos_weight: w, the weight of a positive label: one number, or one per column.
    """

    def __init__(self, pos_weight: float | Sequence[float] | Tensor | None = None) -> None:
        super().__init__()
        if isinstance(pos_weight, int | float):
            pos_weight = [pos_weight]
        self.pos_weight: Tensor | None
        self.register_buffer("pos_weight", class_weight_tensor(pos_weight), persistent=False)

    @property
    def card(self) -> Card:
        return Card(
            formula=r"-\frac{1}{K} \sum_k \bigl(w\, t_k \log \sigma(z_k) + (1 - t_k) \log(1 - \sigma(z_k))\bigr)",
            plain="-w t log σ(z) - (1 - t) log(1 - σ(z)), averaged over the outputs",
            source="Cox, The regression analysis of binary sequences, 1958",
            far=Slope.STAYS,
            convex=True,
            uniform="log(2)" if self.pos_weight is None else None,
            proper=self.pos_weight is None,
            note="With many classes as one-vs-all, nearly all labels are 0. The initial loss is log 2, and the network "
            "first learns that most labels are 0.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        weight = None if self.pos_weight is None else self.pos_weight.to(outputs.dtype)
        if weight is not None and weight.ndim and len(weight) not in {1, outputs.shape[-1]}:
            raise LabError(
                f"BCE: pos_weight must be one number, or one for each of {outputs.shape[-1]} outputs: got {len(weight)}"
            )
        losses = F.binary_cross_entropy_with_logits(outputs, target, pos_weight=weight, reduction="none")
        return mean_over_outputs(losses)


class PriorSigmoid(SigmoidLoss):
    """Sigmoid cross-entropy: Σ_k -t_k log σ(z_k - log K) - (1 - t_k) log(1 - σ(z_k - log K)), summed over K outputs.

    It is for classes as one-vs-all, where one of K labels is 1. Because log K is subtracted, outputs of 0 mean
    probabilities of 1/(K + 1). With one output the loss is binary cross-entropy.
    """

    card = Card(
        formula=r"-\sum_k \bigl(t_k \log \sigma(z_k - \log K) + (1 - t_k) \log(1 - \sigma(z_k - \log K))\bigr)",
        plain="-t log σ(z - log K) - (1 - t) log(1 - σ(z - log K)), summed over the outputs",
        source="Kornblith et al., Why do better loss functions lead to less transferable features?, 2021",
        far=Slope.STAYS,
        convex=True,
        uniform="log(1 + K) + (K - 1) * log((K + 1) / K)",
        proper=True,
        note="It is a sum over the outputs, so its gradient is K times that of bce. It is made for one label among "
        "many: if several labels are 1, the initial probability is too low.",
    )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(_shifted(outputs), target, reduction="none")
        return mean_over_outputs(losses) * outputs.shape[-1]

    def to_logits(self, outputs: Tensor) -> Tensor:
        """Return z - log K, (N, K)."""
        return _shifted(outputs)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Return σ(z - log K), the probability of each label (N, K)."""
        return torch.sigmoid(self.to_logits(outputs))


def _shifted(outputs: Tensor) -> Tensor:
    return outputs - math.log(outputs.shape[-1])
