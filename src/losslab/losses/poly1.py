"""Cross-entropy with another first coefficient."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.class_weights import WeightRule
from losslab.losses.numerics import log_softmax_tails


class Poly1(ClassLoss):
    """Poly-1 loss: -log p_y + ε (1 - p_y).

    Cross-entropy is Σ_j (1 - p_y)^j / j. Poly-1 makes the first coefficient 1 + ε.

    Args:
        epsilon: ε; 0 is cross-entropy.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "epsilon": Parameter(
            "ε, what the first coefficient has more than cross-entropy's 1",
            "[-1, inf)",
            "the paper's on ImageNet, as optax cites it; -1 for detection",
            (-1.0, 0.0, 1.0, 2.0),
        ),
    }
    epsilon: float | Tensor

    def __init__(
        self,
        epsilon: float | Tensor = 2.0,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.set_hyperparameter("epsilon", epsilon)

    @property
    def card(self) -> Card:
        """Convex until ε exceeds 1, proper at 0 alone."""
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
            note="A positive ε makes the network surer than the truth, a negative one less sure. The gradient of a "
            "half-learnt example is up to 1 + ε times cross-entropy's.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """(1 + ε) (1 - p_k) + what the higher powers of 1 - p_k add → (N, C)."""
        log_p, log_rest = log_softmax_tails(outputs)
        rest = log_rest.exp()
        # At ε = -1 and p → 1 the two terms of the formula cancel: there the higher powers are summed themselves.
        return (1 + self.epsilon) * rest + torch.where(rest < _SMALL, _higher_powers(rest), -log_p - rest)


_SMALL = 0.1
"""Below it, 16 terms are exact in float64."""


def _higher_powers(x: Tensor) -> Tensor:
    """x²/2 + x³/3 + ... + x¹⁷/17."""
    total = torch.zeros_like(x)
    for power in range(17, 1, -1):
        total = total * x + 1 / power
    return total * x.square()
