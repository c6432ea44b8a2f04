"""The bi-tempered logistic loss."""

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import log_tempered_softmax, scalar, sum_of_others, tempered_surprisal


class BiTempered(ClassLoss):
    """Bi-tempered logistic loss: -log_t1 p_y - (1 - Σ_k p_k^(2 - t1)) / (2 - t1), where p is the tempered softmax.

    log_t u = (u^(1 - t) - 1) / (1 - t), and the p_k = exp_t2(z_k - λ) sum to 1. t1 < 1 bounds the loss, which limits
    the influence of outliers; t2 > 1 gives p heavy tails, so that wrong labels near the boundary have less effect.
    t1 = t2 = 1 is cross-entropy.

    For soft targets it is the expected loss. The paper uses a Bregman divergence, which has the same gradients. The
    divergence is lower by a number that depends only on the target, and is 0 at p = t.
    """

    t1: float | Tensor = hyperparameter(
        "t1, the logarithm's temperature", "[0, 1]", "the paper's for CIFAR-100", (0.0, 0.5, 0.8, 1.0), default=0.8
    )
    t2: float | Tensor = hyperparameter(
        "t2, the exponential's temperature", "[1, 10]", "the paper's for CIFAR-100", (1.0, 1.2, 1.4), default=1.2
    )

    @property
    def card(self) -> Card:
        is_bounded, is_cross_entropy = bool(self.t1 < 1), bool(self.t1 == 1 and self.t2 == 1)
        return Card(
            formula=r"-\log_{t_1} p_y - \frac{1 - \sum_k p_k^{2 - t_1}}{2 - t_1}, \quad "
            r"p_k = \exp_{t_2}(z_k - \lambda)",
            plain="-log_t1 p_y - (1 - Σ_k p_k^(2 - t1)) / (2 - t1), where p = tempered softmax(z)",
            source="Amid et al., Robust bi-tempered logistic loss based on Bregman divergences, 2019",
            far=Slope.STAYS if is_cross_entropy else Slope.FADES,
            convex=is_cross_entropy,
            high="1 / (1 - t1)" if is_bounded else "oo",
            uniform="(1 - K**(t1 - 1)) / ((1 - t1) * (2 - t1))" if is_bounded else "log(K)",
            shift_invariant=True,
            proper=self.weight is None,
            note="Metrics use the probabilities of the tempered softmax. With t2 > 1 the same confidence needs much "
            "larger margins than with the softmax.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        log_p, one_minus_p = log_tempered_softmax(outputs, self.t2)
        r = scalar(1 - self.t1, outputs)
        powers = torch.exp((1 + r) * log_p)
        # The first term of the loss of class k and term k of the sum. Where p_k is near 1 they nearly cancel.
        own = tempered_surprisal(log_p, r) - tempered_surprisal(log_p, 1 + r)
        own = torch.where(one_minus_p < 0.05, _own_near_1(one_minus_p, r), own)
        return own + sum_of_others(powers) / (1 + r)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Return the tempered softmax (N, C)."""
        return log_tempered_softmax(outputs, self.t2)[0].exp()

    def to_logits(self, outputs: Tensor) -> None:
        """Return None: the tempered softmax is no softmax of the outputs."""


def _own_near_1(one_minus_p: Tensor, r: Tensor) -> Tensor:
    """Return (1 - p^r) / r - (1 - p^(1 + r)) / (1 + r) with r = 1 - t1, as a power series (1 - p)²/2 + ... in 1 - p."""
    total, coefficient = torch.zeros_like(one_minus_p), torch.ones_like(r)
    power = one_minus_p.square()
    for n in range(14):
        total = total + coefficient * power / (n + 2)
        coefficient, power = coefficient * (n + 1 - r) / (n + 1), power * one_minus_p
    return total
