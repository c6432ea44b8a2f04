"""Poly-1 loss: cross-entropy with another first polynomial coefficient."""

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import log_softmax_tails


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
        """Convex for ε ≤ 1, proper only at ε = 0."""
        epsilon = float(self.epsilon)
        return Card(
            formula=r"-\log p_y + \varepsilon (1 - p_y)",
            plain="-log p_y + ε (1 - p_y)",
            source="Leng et al., PolyLoss: a polynomial expansion perspective of classification loss functions, 2022",
            near=Slope.FADES,
            far=Slope.STAYS,
            convex=epsilon <= 1,
            uniform="log(K) + epsilon * (K - 1) / K",
            shift_invariant=True,
            proper=epsilon == 0 and self.weight is None,
            note="A positive ε makes the network overconfident, a negative one underconfident. The gradient of a "
            "half-learnt example is up to 1 + ε times cross-entropy's.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """(1 + ε) (1 - p_k) plus the sum of the higher powers of 1 - p_k → (N, C)."""
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
