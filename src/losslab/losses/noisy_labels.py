"""Losses for noisy labels: mean absolute error on probabilities, and reverse, generalised and normalised losses."""

from math import log

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import BoundedCard, Card
from losslab.losses.hyperparameters import argument, hyperparameter
from losslab.losses.numerics import expm1, log_softmax_tails

_LOG_1E_4 = log(1e-4)
_MA_2020 = "Ma et al., Normalized loss functions for deep learning with noisy labels, 2020"
_ZHOU_2021 = "Zhou et al., Asymmetric loss functions for learning with noisy labels, 2021"
_FLAT_NOTE = (
    "Its gradient at the logit of the label is p_y (1 - p_y), which is small where p_y is small: with many classes, "
    "where p_y starts near 1/K, training is very slow. At its minimum the most likely class has probability 1."
)
_NORMALISED_NOTE = (
    "It tolerates symmetric noise below (K - 1)/K. By itself it fits slowly: the paper adds MAE or RCE. Its minimum is "
    "not at the true probabilities."
)


class MAE(ClassLoss):
    """Mean absolute error on probabilities: 1 - p_y with p = softmax(z), for very noisy labels.

    It is the expected error rate of predictions drawn from p, and half of the paper's Σ_k |t_k - p_k| = 2 (1 - p_y).
    The published code of later papers, from which conf/loss has the weights in sums of losses, omits the 2 as well.
    """

    @property
    def card(self) -> Card:
        return BoundedCard(
            formula=r"1 - p_y",
            plain="1 - p_y",
            source="Ghosh, Kumar & Sastry, Robust loss functions under label noise for deep neural networks, 2017, "
            "which writes 2 (1 - p_y)",
            high="1",
            uniform="(K - 1) / K",
            symmetric="K - 1" if self.weight is None else None,
            note=_FLAT_NOTE,
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        return log_softmax_tails(outputs)[1].exp()


class RCE(ClassLoss):
    """Reverse cross-entropy: -Σ_k p_k log t_k, where log 0 is defined as A. This is -A (1 - p_y), or -A times MAE.

    It is cross-entropy with target and prediction exchanged, and the part of symmetric cross-entropy (`sce`) that
    tolerates noise. For soft targets it is the expected loss, Σ_k t_k (-A) (1 - p_k). The code of Wang et al. 2019 and
    of Ma et al. 2020 clamps t at 1e-4, so A = log(1e-4) = -9.21; the text of Ma et al. has A = -4.
    """

    log_zero: float | Tensor = hyperparameter(
        "A, the value that replaces log 0",
        "(-inf, 0)",
        "log(1e-4), as in published code; papers write -4",
        (_LOG_1E_4, -4.0, -1.0),
        default=_LOG_1E_4,
    )

    @property
    def card(self) -> Card:
        return BoundedCard(
            formula=r"-\sum_k p_k \log t_k = -A (1 - p_y), \quad \log 0 := A",
            plain="-A (1 - p_y)",
            source="Wang et al., Symmetric cross entropy for robust learning with noisy labels, 2019",
            high="-log_zero",
            uniform="-log_zero * (K - 1) / K",
            symmetric="-log_zero * (K - 1)" if self.weight is None else None,
            note=_FLAT_NOTE + " A only scales the loss, like a learning rate; in a sum of losses it acts as a weight.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        return -self.log_zero * log_softmax_tails(outputs)[1].exp()


class GCE(ClassLoss):
    """Generalised cross-entropy: (1 - p_y^q) / q with p = softmax(z), between cross-entropy (q → 0) and MAE (q = 1).

    It is for noisy labels: its gradient is that of cross-entropy times p_y^q, so unlikely labels count less. q = 0 is
    outside the range: use `cross_entropy`.
    """

    q: float | Tensor = hyperparameter(
        "q, from cross-entropy (near 0) to MAE (1)", "(0, 1]", "the paper's", (0.1, 0.4, 0.7, 1.0), default=0.7
    )

    @property
    def card(self) -> Card:
        return BoundedCard(
            formula=r"\frac{1 - p_y^q}{q}",
            plain="(1 - p_y^q) / q",
            source="Zhang & Sabuncu, Generalized cross entropy loss for training deep neural networks with noisy "
            "labels, 2018",
            high="1 / q",
            uniform="(1 - K**-q) / q",
            symmetric="K - 1" if self.q == 1 and self.weight is None else None,
            note="At its minimum p_k is proportional to t_k^(1/(1 - q)), which is overconfident. The gradient at "
            "uniform logits is K^-q times that of cross-entropy: a fifth with q = 0.7 and ten classes.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        # In the form exp(q log p), p^q has a gradient even where p underflows.
        return -expm1(self.q * log_softmax_tails(outputs)[0]) / self.q


class AGCE(ClassLoss):
    """Asymmetric generalised cross-entropy: ((a + 1)^q - (a + p_y)^q) / q with p = softmax(z). q = 1 is MAE.

    It approaches GCE as a → 0. The best prediction is the same for noisy and clean labels if, for q < 1, correct labels
    are at least `(1 + 1/a)^(1 - q)` times as likely as each wrong label; for q ≥ 1, if they are more likely.
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
            source=_ZHOU_2021,
            high="((a + 1)**q - a**q) / q",
            uniform="((a + 1)**q - (a + 1/K)**q) / q",
            symmetric="K - 1" if self.q == 1 and self.weight is None else None,
            note="It tolerates noise if q ≥ 1, or if correct labels are at least (1 + 1/a)^(1 - q) times as likely as "
            "each wrong label. Its gradient fades to 0 on confidently wrong examples.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        log_p, log_one_minus_p = log_softmax_tails(outputs)
        is_likely = log_p > -log(2)
        # log((a + p) / (a + 1)), from p or 1 - p so that no digits cancel. where() differentiates both sides, so an
        # unused p or 1 - p becomes 0.5.
        one_minus_p = log_one_minus_p.exp().where(is_likely, 0.5)
        p = log_p.exp().where(~is_likely, 0.5)
        from_one_minus_p = torch.log1p(-one_minus_p / (self.a + 1))
        log_ratio = torch.where(is_likely, from_one_minus_p, torch.log((self.a + p) / (self.a + 1)))
        return (self.a + 1) ** self.q * -expm1(self.q * log_ratio) / self.q


class AUL(ClassLoss):
    """Asymmetric unhinged loss: ((a - p_y)^p - (a - 1)^p) / p, where p_y is from softmax(z). p = 1 is MAE.

    The best prediction is the same for noisy and clean labels if, for p > 1, correct labels are at least
    `(a / (a - 1))^(p - 1)` times as likely as each wrong label; for p ≤ 1, if they are more likely.
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
            source=_ZHOU_2021,
            high="(a**p - (a - 1)**p) / p",
            uniform="((a - 1/K)**p - (a - 1)**p) / p",
            symmetric="K - 1" if self.p == 1 and self.weight is None else None,
            note="It tolerates noise if p ≤ 1, or if correct labels are at least (a / (a - 1))^(p - 1) times as likely "
            "as each wrong label. Its gradient is that of MAE times (a - p_y)^(p - 1), about 25 at a = 5.5 and p = 3.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        a_minus_1 = self.a - 1
        one_minus_p_y = log_softmax_tails(outputs)[1].exp()
        # a - p_y is computed as (a - 1) + (1 - p_y), so that no digits cancel.
        log_ratio = torch.log1p(one_minus_p_y / a_minus_1)  # log((a - p_y) / (a - 1))
        return (a_minus_1 + one_minus_p_y) ** self.p * -expm1(-self.p * log_ratio) / self.p


class NCE(ClassLoss):
    """Normalised cross-entropy: log p_y / Σ_k log p_k with p = softmax(z), for very noisy labels."""

    @property
    def card(self) -> Card:
        return BoundedCard(
            formula=r"\frac{\log p_y}{\sum_k \log p_k}",
            plain="log p_y / Σ_k log p_k",
            source=_MA_2020,
            high="1",
            uniform="1 / K",
            symmetric="1" if self.weight is None else None,
            note=_NORMALISED_NOTE + " Its gradient decreases only as the inverse square of the margin.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        return _shares(_log_surprisal(*log_softmax_tails(outputs)))


class NFL(ClassLoss):
    """Normalised focal loss: (1 - p_y)^γ log p_y / Σ_k (1 - p_k)^γ log p_k with p = softmax(z). γ = 0 is NCE.

    Args:
        detach_focus: whether autograd treats the factors (1 - p_k)^γ as constants, as in the code of the paper. The
            value of the loss is the same, but its gradient is not that of any function.
    """

    gamma: float | Tensor = hyperparameter(
        "γ, how strongly easy examples are down-weighted",
        "[0, inf)",
        "the paper's code",
        (0.0, 0.5, 2.0, 5.0),
        default=0.5,
    )
    detach_focus: bool = argument(default=False, kw_only=True)

    @property
    def card(self) -> Card:
        return BoundedCard(
            formula=r"\frac{(1 - p_y)^\gamma \log p_y}{\sum_k (1 - p_k)^\gamma \log p_k}",
            plain="(1 - p_y)^γ log p_y / Σ_k (1 - p_k)^γ log p_k",
            source=_MA_2020,
            high="1",
            uniform="1 / K",
            symmetric="1" if self.weight is None else None,
            note=_NORMALISED_NOTE,
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        log_p, log_one_minus_p = log_softmax_tails(outputs)
        log_surprisal = _log_surprisal(log_p, log_one_minus_p)
        if self.detach_focus:
            log_one_minus_p = log_one_minus_p.detach()
        return _shares(self.gamma * log_one_minus_p + log_surprisal)


def _shares(log_costs: Tensor) -> Tensor:
    """Return the shares costs / costs.sum(1), (N, C), from the logarithms of the costs.

    This is the softmax of the logarithms, so no cost underflows, and a share near 1 keeps its gradient.
    """
    return log_softmax_tails(log_costs)[0].exp()


def _log_surprisal(log_p: Tensor, log_one_minus_p: Tensor) -> Tensor:
    """Return log(-log p), (N, C). Where p rounds to 1, -log p is computed as r + r²/2 with r = 1 - p."""
    is_near_1 = log_one_minus_p < -20.0
    # where() differentiates both sides, so each side gets arguments at which its gradient is finite.
    series = log_one_minus_p + torch.log1p(log_one_minus_p.where(is_near_1, -20.0).exp() / 2)
    return torch.where(is_near_1, series, torch.log(-log_p.where(~is_near_1, -1.0)))
