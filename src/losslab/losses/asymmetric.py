"""Asymmetric losses: generalised cross-entropy and the unhinged loss, moved so that they tolerate label noise."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.class_weights import WeightRule
from losslab.losses.numerics import expm1, log_softmax_tails

_SOURCE = "Zhou et al., Asymmetric loss functions for learning with noisy labels, 2021"


class AGCE(ClassLoss):
    """Asymmetric generalised cross-entropy: ((a + 1)^q - (a + p_y)^q) / q with p = softmax(z). q = 1 is MAE.

    As a goes to 0 it becomes GCE. Where right labels are at least `(1 + 1/a)^(1 - q)` times as likely as any wrong one
    (for q < 1; from q = 1 on, merely likelier), the noisy labels and the clean ones have the same best prediction.

    Args:
        a: how far p_y is moved away from 0.
        q: the power.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "a": Parameter("a, how far p_y is moved", "(0, 1000]", "the paper's for CIFAR-10", (0.1, 0.6, 6.0)),
        "q": Parameter("q, the power", "(0, 10]", "the paper's for CIFAR-10", (0.2, 0.6, 1.0, 1.5)),
    }
    a: float | Tensor
    q: float | Tensor

    def __init__(
        self,
        a: float | Tensor = 0.6,
        q: float | Tensor = 0.6,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.set_hyperparameter("a", a)
        self.set_hyperparameter("q", q)

    @property
    def card(self) -> Card:
        """MAE at q = 1, and otherwise not symmetric."""
        return Card(
            formula=r"\frac{(a + 1)^q - (a + p_y)^q}{q}",
            plain="((a + 1)^q - (a + p_y)^q) / q",
            source=_SOURCE,
            near=Slope.FADES,
            far=Slope.FADES,
            convex=False,
            high="((a + 1)**q - a**q) / q",
            uniform="((a + 1)**q - (a + 1/K)**q) / q",
            symmetric="K - 1" if self.q == 1 and self.weight is None else None,
            shift_invariant=True,
            proper=False,
            note="Tolerates noise if q ≥ 1, or if right labels are (1 + 1/a)^(1 - q) times as likely as each wrong "
            "one. Its gradient fades on confidently wrong examples.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """((a + 1)^q - (a + p_k)^q) / q → (N, C)."""
        log_p, log_rest = log_softmax_tails(outputs)
        likely = log_p > -_LOG_2
        # log((a + p) / (a + 1)), from the side on which nothing cancels. where() differentiates both.
        rest = log_rest.exp().where(likely, 0.5)
        p = log_p.exp().where(~likely, 0.5)
        ratio = torch.where(likely, torch.log1p(-rest / (self.a + 1)), torch.log((self.a + p) / (self.a + 1)))
        return (self.a + 1) ** self.q * -expm1(self.q * ratio) / self.q


class AUL(ClassLoss):
    """Asymmetric unhinged loss: ((a - p_y)^p - (a - 1)^p) / p, p_y of softmax(z). p = 1 is MAE.

    Where right labels are at least `(a / (a - 1))^(p - 1)` times as likely as any wrong one (for p > 1; up to p = 1,
    merely likelier), the noisy labels and the clean ones have the same best prediction.

    Args:
        a: how far p_y is moved, above 1.
        p: the power.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "a": Parameter("a, how far p_y is moved", "(1, 1000]", "the paper's for CIFAR-10", (1.1, 2.0, 5.5)),
        "p": Parameter("p, the power", "(0, 10]", "the paper's for CIFAR-10", (0.1, 1.0, 3.0)),
    }
    a: float | Tensor
    p: float | Tensor

    def __init__(
        self,
        a: float | Tensor = 5.5,
        p: float | Tensor = 3.0,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.set_hyperparameter("a", a)
        self.set_hyperparameter("p", p)

    @property
    def card(self) -> Card:
        """MAE at p = 1, and otherwise not symmetric."""
        return Card(
            formula=r"\frac{(a - p_y)^p - (a - 1)^p}{p}",
            plain="((a - p_y)^p - (a - 1)^p) / p",
            source=_SOURCE,
            near=Slope.FADES,
            far=Slope.FADES,
            convex=False,
            high="(a**p - (a - 1)**p) / p",
            uniform="((a - 1/K)**p - (a - 1)**p) / p",
            symmetric="K - 1" if self.p == 1 and self.weight is None else None,
            shift_invariant=True,
            proper=False,
            note="Tolerates noise if p ≤ 1, or if right labels are (a / (a - 1))^(p - 1) times as likely as each wrong "
            "one. Its gradient grows with (a - p_y)^(p - 1): about 25 times MAE's with a = 5.5, p = 3.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """((a - p_k)^p - (a - 1)^p) / p → (N, C)."""
        beyond = self.a - 1
        rest = log_softmax_tails(outputs)[1].exp()
        # (a - 1) / (a - p) as a logarithm: a - p is a - 1 and what p lacks of 1.
        return (beyond + rest) ** self.p * -expm1(-self.p * torch.log1p(rest / beyond)) / self.p


_LOG_2 = 0.6931471805599453
