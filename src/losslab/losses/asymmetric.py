"""Asymmetric losses: generalised cross-entropy and the unhinged loss, shifted to tolerate label noise."""

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import BoundedCard, Card
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import expm1, log_softmax_tails

_SOURCE = "Zhou et al., Asymmetric loss functions for learning with noisy labels, 2021"


class AGCE(ClassLoss):
    """Asymmetric generalised cross-entropy: ((a + 1)^q - (a + p_y)^q) / q with p = softmax(z). q = 1 is MAE.

    It approaches GCE as a goes to 0. Noisy and clean labels have the same best prediction if correct labels are at
    least `(1 + 1/a)^(1 - q)` times as likely as each wrong one (for q < 1; for q ≥ 1, if they are more likely).
    """

    a: float | Tensor = hyperparameter(
        "a, the shift of p_y", "(0, 1000]", "the paper's for CIFAR-10", (0.1, 0.6, 6.0), default=0.6
    )
    q: float | Tensor = hyperparameter(
        "q, the power", "(0, 10]", "the paper's for CIFAR-10", (0.2, 0.6, 1.0, 1.5), default=0.6
    )

    @property
    def card(self) -> Card:
        return BoundedCard(
            formula=r"\frac{(a + 1)^q - (a + p_y)^q}{q}",
            plain="((a + 1)^q - (a + p_y)^q) / q",
            source=_SOURCE,
            high="((a + 1)**q - a**q) / q",
            uniform="((a + 1)**q - (a + 1/K)**q) / q",
            symmetric="K - 1" if self.q == 1 and self.weight is None else None,
            note="Tolerates noise if q ≥ 1, or if correct labels are (1 + 1/a)^(1 - q) times as likely as each wrong "
            "one. Its gradient fades on confidently wrong examples.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        log_p, log_rest = log_softmax_tails(outputs)
        likely = log_p > -_LOG_2
        # log((a + p) / (a + 1)), computed from p or from 1 - p so that nothing cancels. where() differentiates both.
        rest = log_rest.exp().where(likely, 0.5)
        p = log_p.exp().where(~likely, 0.5)
        ratio = torch.where(likely, torch.log1p(-rest / (self.a + 1)), torch.log((self.a + p) / (self.a + 1)))
        return (self.a + 1) ** self.q * -expm1(self.q * ratio) / self.q


class AUL(ClassLoss):
    """Asymmetric unhinged loss: ((a - p_y)^p - (a - 1)^p) / p, p_y of softmax(z). p = 1 is MAE.

    Noisy and clean labels have the same best prediction if correct labels are at least `(a / (a - 1))^(p - 1)` times
    as likely as each wrong one (for p > 1; for p ≤ 1, if they are more likely).
    """

    a: float | Tensor = hyperparameter(
        "a, the shift of p_y", "(1, 1000]", "the paper's for CIFAR-10", (1.1, 2.0, 5.5), default=5.5
    )
    p: float | Tensor = hyperparameter(
        "p, the power", "(0, 10]", "the paper's for CIFAR-10", (0.1, 1.0, 3.0), default=3.0
    )

    @property
    def card(self) -> Card:
        return BoundedCard(
            formula=r"\frac{(a - p_y)^p - (a - 1)^p}{p}",
            plain="((a - p_y)^p - (a - 1)^p) / p",
            source=_SOURCE,
            high="(a**p - (a - 1)**p) / p",
            uniform="((a - 1/K)**p - (a - 1)**p) / p",
            symmetric="K - 1" if self.p == 1 and self.weight is None else None,
            note="Tolerates noise if p ≤ 1, or if correct labels are (a / (a - 1))^(p - 1) times as likely as each "
            "wrong one. Its gradient grows with (a - p_y)^(p - 1): about 25 times MAE's with a = 5.5, p = 3.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        beyond = self.a - 1
        rest = log_softmax_tails(outputs)[1].exp()
        # (a - 1) / (a - p) as a logarithm, with a - p written as (a - 1) + (1 - p).
        return (beyond + rest) ** self.p * -expm1(-self.p * torch.log1p(rest / beyond)) / self.p


_LOG_2 = 0.6931471805599453
