"""Cross-entropy, with all options of torch's, and two relatives: the KL divergence and Poly-1."""

from typing import Any

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss, Loss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import argument, hyperparameter
from losslab.losses.numerics import log_softmax_tails
from losslab.targets import Kind


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
        return -torch.log_softmax(outputs, dim=1)

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
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


class KLDiv(Loss):
    """Kullback-Leibler divergence KL(t ‖ p) = Σ_k t_k log(t_k / p_k) with p = softmax(z).

    Cross-entropy minus the entropy of the target: the same gradients, and 0 at p = t. Takes logits and averages over
    examples (torch's "batchmean"), never over elements.
    """

    wants = (Kind.PROBABILITIES,)

    card = Card(
        formula=r"\sum_k t_k \log \frac{t_k}{p_k}",
        plain="Σ_k t_k log(t_k / p_k)",
        source="Kullback & Leibler, On information and sufficiency, 1951",
        far=Slope.STAYS,
        convex=True,
        uniform="log(K)",
        shift_invariant=True,
        proper=True,
    )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        # Not F.kl_div, which fails under torch.func.vmap. xlogy defines 0 log 0 as 0.
        return (torch.xlogy(target, target) - target * torch.log_softmax(outputs, dim=1)).sum(1)


class Poly1(ClassLoss):
    """Poly-1 loss: -log p_y + ε (1 - p_y).

    Cross-entropy is Σ_j (1 - p_y)^j / j; Poly-1 changes the first coefficient to 1 + ε. ε = 0 is cross-entropy.
    """

    epsilon: float | Tensor = hyperparameter(
        "ε, added to cross-entropy's first coefficient of 1",
        "[-1, inf)",
        "the paper's on ImageNet, as optax cites it; -1 for detection",
        (-1.0, 0.0, 1.0, 2.0),
        default=2.0,
    )

    @property
    def card(self) -> Card:
        epsilon = float(self.epsilon)
        return Card(
            formula=r"-\log p_y + \varepsilon (1 - p_y)",
            plain="-log p_y + ε (1 - p_y)",
            source="Leng et al., PolyLoss: a polynomial expansion perspective of classification loss functions, 2022",
            far=Slope.STAYS,
            convex=epsilon <= 1,
            uniform="log(K) + epsilon * (K - 1) / K",
            shift_invariant=True,
            proper=epsilon == 0 and self.weight is None,
            note="A positive ε makes the network overconfident, a negative one underconfident. The gradient of a "
            "half-learnt example is up to 1 + ε times cross-entropy's.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        log_p, log_rest = log_softmax_tails(outputs)
        rest = log_rest.exp()
        # At ε = -1 and p → 1 the two terms of the formula cancel, so there the higher powers are summed directly.
        return (1 + self.epsilon) * rest + torch.where(rest < _SMALL, _higher_powers(rest), -log_p - rest)


_SMALL = 0.1
"""Below this, 16 terms are exact in float64."""


def _higher_powers(x: Tensor) -> Tensor:
    """x²/2 + x³/3 + ... + x¹⁷/17."""
    total = torch.zeros_like(x)
    for power in range(17, 1, -1):
        total = total * x + 1 / power
    return total * x.square()
