"""Cross-entropy with all options of torch's: class weights, label smoothing, an ignored index, soft targets."""

from typing import Any

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import argument, hyperparameter


class CrossEntropy(ClassLoss):
    """Cross-entropy: -Σ_k w_k t_k log p_k with p = softmax(z); for a class index, -w_y log p_y.

    The negative log-likelihood of a categorical model; ∂/∂z = p - t at unit weights. Equals F.cross_entropy, but is
    written out, because label smoothing (Szegedy et al. 2016) must also work as a tensor.
    """

    weight: Any = argument(default=None)  # the first argument, as in torch
    label_smoothing: float | Tensor = hyperparameter(
        "ε, with which targets become (1 - ε) t + ε/K",
        "[0, 1]",
        "torch's 0; Szegedy et al. use 0.1",
        (0.0, 0.1, 0.3),
        default=0.0,
    )

    @property
    def card(self) -> Card:
        """A proper scoring rule, unless weights or smoothing move its optimum."""
        plain = float(self.label_smoothing) == 0
        return Card(
            formula=r"-\log p_y"
            if plain
            else r"-\sum_k \Bigl((1 - \varepsilon) t_k + \frac{\varepsilon}{K}\Bigr) \log p_k",
            plain="-log p_y" if plain else "-(1 - ε) log p_y - (ε/K) Σ_k log p_k",
            source="Good, Rational decisions, 1952"
            if plain
            else "Szegedy et al., Rethinking the Inception architecture for computer vision, 2016",
            near=Slope.FADES if plain else Slope.STAYS,
            far=Slope.STAYS,
            convex=True,
            low="0" if plain else _LEAST_SMOOTHED,
            uniform="log(K)",
            shift_invariant=True,
            proper=plain and self.weight is None,
            note="The gradient at the logits is p - t: at most 1 for each example, however wrong it is.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """-log p_k → (N, C)."""
        return -torch.log_softmax(outputs, dim=1)

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) or (N, C) → (N,)."""
        costs = self.weighted(self.classwise(outputs))
        scores = self.pick(costs, target)
        if not isinstance(self.label_smoothing, Tensor) and self.label_smoothing == 0:
            return scores  # the formula below would give 0 · ∞ for a class with a logit of -inf
        smoothed = (1 - self.label_smoothing) * scores + self.label_smoothing * costs.mean(1)
        return smoothed if target.dtype.is_floating_point else smoothed.where(target != self.ignore_index, 0)


# The entropy of the smoothed target, which is the minimum.
_LEAST_SMOOTHED = (
    "-(1 - label_smoothing * (K - 1) / K) * log(1 - label_smoothing * (K - 1) / K)"
    " - (K - 1) * label_smoothing / K * log(label_smoothing / K)"
)
