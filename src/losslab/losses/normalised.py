"""Normalised losses: a loss divided by its sum over the classes, which makes it symmetric."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.class_weights import WeightRule
from losslab.losses.numerics import log_softmax_tails

_SOURCE = "Ma et al., Normalized loss functions for deep learning with noisy labels, 2020"
_PASSIVE = (
    "Tolerates symmetric noise below (K - 1)/K, and fits slowly by itself: the paper adds MAE or RCE. Where it is "
    "least, it tells which class is likeliest, and no more."
)


class NCE(ClassLoss):
    """Normalised cross-entropy: log p_y / Σ_k log p_k with p = softmax(z), for labels of which many are wrong.

    Args:
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    @property
    def card(self) -> Card:
        """Symmetric and bounded; unlike MAE it has a gradient where it is sure of the wrong class."""
        return Card(
            formula=r"\frac{\log p_y}{\sum_k \log p_k}",
            plain="log p_y / Σ_k log p_k",
            source=_SOURCE,
            near=Slope.FADES,
            far=Slope.FADES,
            convex=False,
            high="1",
            uniform="1 / K",
            symmetric="1" if self.weight is None else None,
            shift_invariant=True,
            proper=False,
            note=_PASSIVE + " Its gradient fades like the inverse square of the margin, so nothing is ever quite flat.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """The share of each class in -Σ_k log p_k, which is at least K log K → (N, C)."""
        return _shares(_log_surprise(*log_softmax_tails(outputs)))


class NFL(ClassLoss):
    """Normalised focal loss: (1 - p_y)^γ log p_y / Σ_k (1 - p_k)^γ log p_k with p = softmax(z). γ = 0 is NCE.

    Args:
        gamma: γ, how much sure examples are turned down.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
        detach_focus: take the (1 - p_k)^γ for constants, as the code published with the paper does. The value is the
            same, but what is followed is then not its gradient, nor that of any other function.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "gamma": Parameter(
            "γ, how much sure examples are turned down", "[0, inf)", "the paper's code", (0.0, 0.5, 2.0, 5.0)
        ),
    }
    gamma: float | Tensor

    def __init__(
        self,
        gamma: float | Tensor = 0.5,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
        *,
        detach_focus: bool = False,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.set_hyperparameter("gamma", gamma)
        self.detach_focus = detach_focus

    @property
    def card(self) -> Card:
        """NCE's facts."""
        return Card(
            formula=r"\frac{(1 - p_y)^\gamma \log p_y}{\sum_k (1 - p_k)^\gamma \log p_k}",
            plain="(1 - p_y)^γ log p_y / Σ_k (1 - p_k)^γ log p_k",
            source=_SOURCE,
            near=Slope.FADES,
            far=Slope.FADES,
            convex=False,
            high="1",
            uniform="1 / K",
            symmetric="1" if self.weight is None else None,
            shift_invariant=True,
            proper=False,
            note=_PASSIVE,
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """The share of each class in the sum of the focal losses → (N, C)."""
        log_p, log_rest = log_softmax_tails(outputs)
        surprise = _log_surprise(log_p, log_rest)
        if self.detach_focus:
            log_rest = log_rest.detach()
        return _shares(self.gamma * log_rest + surprise)


def _shares(log_costs: Tensor) -> Tensor:
    """What is costs / costs.sum(1), of the logarithms of the costs → (N, C).

    That is a softmax: no cost can underflow before it is normalised, and a share near 1 keeps its gradient.
    """
    return log_softmax_tails(log_costs)[0].exp()


def _log_surprise(log_p: Tensor, log_rest: Tensor) -> Tensor:
    """log(-log p), also where p rounds to 1: then -log p is r + r²/2 with r = 1 - p → (N, C)."""
    sure = log_rest < _SURE
    # where() differentiates both sides: each gets arguments that it can take.
    near = log_rest + torch.log1p(log_rest.where(sure, _SURE).exp() / 2)
    return torch.where(sure, near, torch.log(-log_p.where(~sure, -1.0)))


_SURE = -20.0
