"""Losses that are linear in the probability of the class: mean absolute error and reverse cross-entropy."""

from collections.abc import Mapping, Sequence
from math import log
from typing import ClassVar

from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.class_weights import WeightRule
from losslab.losses.numerics import log_softmax_tails

_CLAMPED_AT_1E_4 = log(1e-4)
_FLAT = (
    "Its gradient at the logit of the class is p_y (1 - p_y), which fades where p_y is small: with many classes, where "
    "p_y begins near 1/K, it hardly starts to learn. Where it is least it tells which class is likeliest, and no more."
)


class MAE(ClassLoss):
    """Mean absolute error on probabilities: 1 - p_y with p = softmax(z), for labels of which many are wrong.

    It is half of Σ_k |t_k - p_k| = 2 (1 - p_y), which the paper writes: the published code of later papers, whose
    weights the compositions here use, leaves out the 2. The expected number of errors of a network that guesses from
    its own probabilities.

    Args:
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    @property
    def card(self) -> Card:
        """Symmetric, so tolerant of noise; flat where it is wrong, so slow."""
        return Card(
            formula=r"1 - p_y",
            plain="1 - p_y",
            source="Ghosh, Kumar & Sastry, Robust loss functions under label noise for deep neural networks, 2017, "
            "which writes 2 (1 - p_y)",
            near=Slope.FADES,
            far=Slope.FADES,
            convex=False,
            high="1",
            uniform="(K - 1) / K",
            symmetric="K - 1" if self.weight is None else None,
            shift_invariant=True,
            proper=False,
            note=_FLAT,
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """1 - p_k → (N, C)."""
        return log_softmax_tails(outputs)[1].exp()


class RCE(ClassLoss):
    """Reverse cross-entropy: -Σ_k p_k log t_k with log 0 taken to be A, which is -A (1 - p_y): -A times MAE.

    Cross-entropy with target and prediction exchanged; the part of symmetric cross-entropy (`sce`) that tolerates
    noise. Soft targets are averaged over like everywhere here: Σ_k t_k (-A) (1 - p_k).

    Args:
        log_zero: A < 0. The code of Wang et al. 2019 and of Ma et al. 2020 clamps t at 1e-4, so A = log(1e-4) = -9.21;
            the text of Ma et al. says A = -4.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "log_zero": Parameter(
            "A, what log 0 is taken to be",
            "(-inf, 0)",
            "the published code's log(1e-4); papers write -4",
            (_CLAMPED_AT_1E_4, -4.0, -1.0),
        ),
    }
    log_zero: float | Tensor

    def __init__(
        self,
        log_zero: float | Tensor = _CLAMPED_AT_1E_4,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.set_hyperparameter("log_zero", log_zero)

    @property
    def card(self) -> Card:
        """MAE's, times -A."""
        return Card(
            formula=r"-\sum_k p_k \log t_k = -A (1 - p_y), \quad \log 0 := A",
            plain="-A (1 - p_y)",
            source="Wang et al., Symmetric cross entropy for robust learning with noisy labels, 2019",
            near=Slope.FADES,
            far=Slope.FADES,
            convex=False,
            high="-log_zero",
            uniform="-log_zero * (K - 1) / K",
            symmetric="-log_zero * (K - 1)" if self.weight is None else None,
            shift_invariant=True,
            proper=False,
            note=_FLAT + " A only scales it, as a learning rate would; in a sum with other losses it is a weight.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """-A (1 - p_k) → (N, C)."""
        return -self.log_zero * log_softmax_tails(outputs)[1].exp()
