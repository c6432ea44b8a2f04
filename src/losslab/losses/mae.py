"""Losses for noisy labels: mean absolute error, reverse cross-entropy and generalised cross-entropy."""

from math import log

from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import BoundedCard, Card
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import expm1, log_softmax_tails

_CLAMPED_AT_1E_4 = log(1e-4)
_FLAT = (
    "Its gradient at the logit of the label is p_y (1 - p_y), which fades where p_y is small: with many classes, where "
    "p_y begins near 1/K, it hardly starts to learn. Its minimum tells only which class is most likely."
)


class MAE(ClassLoss):
    """Mean absolute error on probabilities: 1 - p_y with p = softmax(z), for very noisy labels.

    This is half of the paper's Σ_k |t_k - p_k| = 2 (1 - p_y): the published code of later papers, from which the
    weights of the composed losses come, omits the 2. It is the expected error rate of predictions drawn from p.
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
            note=_FLAT,
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        return log_softmax_tails(outputs)[1].exp()


class RCE(ClassLoss):
    """Reverse cross-entropy: -Σ_k p_k log t_k with log 0 defined as A, which is -A (1 - p_y): -A times MAE.

    Cross-entropy with target and prediction exchanged; the part of symmetric cross-entropy (`sce`) that tolerates
    noise. A soft target costs the expected loss, Σ_k t_k (-A) (1 - p_k). The code of Wang et al. 2019 and of Ma et al.
    2020 clamps t at 1e-4, so A = log(1e-4) = -9.21; the text of Ma et al. has A = -4.
    """

    log_zero: float | Tensor = hyperparameter(
        "A, the value that replaces log 0",
        "(-inf, 0)",
        "the published code's log(1e-4); papers write -4",
        (_CLAMPED_AT_1E_4, -4.0, -1.0),
        default=_CLAMPED_AT_1E_4,
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
            note=_FLAT + " A only scales it, like a learning rate; in a sum with other losses it acts as a weight.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        return -self.log_zero * log_softmax_tails(outputs)[1].exp()


class GCE(ClassLoss):
    """Generalised cross-entropy: (1 - p_y^q) / q with p = softmax(z), between cross-entropy (q → 0) and MAE (q = 1).

    For noisy labels: its gradient is that of cross-entropy times p_y^q, so unlikely labels count less.
    For q = 0 use `cross_entropy`.
    """

    q: float | Tensor = hyperparameter(
        "q, from cross-entropy to MAE", "(0, 1]", "the paper's", (0.1, 0.4, 0.7, 1.0), default=0.7
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
            "uniform logits is K^-q times cross-entropy's: a fifth with q = 0.7 and ten classes.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        # p^q written as exp(q log p) has a gradient even where p underflows.
        return -expm1(self.q * log_softmax_tails(outputs)[0]) / self.q
