"""Normalised losses: a loss divided by its sum over all classes, which makes it symmetric."""

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import BoundedCard, Card
from losslab.losses.hyperparameters import argument, hyperparameter
from losslab.losses.numerics import log_softmax_tails

_SOURCE = "Ma et al., Normalized loss functions for deep learning with noisy labels, 2020"
_PASSIVE = (
    "Tolerates symmetric noise below (K - 1)/K, and fits slowly by itself: the paper adds MAE or RCE. Its minimum "
    "tells only which class is most likely."
)


class NCE(ClassLoss):
    """Normalised cross-entropy: log p_y / Σ_k log p_k with p = softmax(z), for very noisy labels."""

    @property
    def card(self) -> Card:
        return BoundedCard(
            formula=r"\frac{\log p_y}{\sum_k \log p_k}",
            plain="log p_y / Σ_k log p_k",
            source=_SOURCE,
            high="1",
            uniform="1 / K",
            symmetric="1" if self.weight is None else None,
            note=_PASSIVE + " Its gradient fades like the inverse square of the margin, so it is never quite flat.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        return _shares(_log_surprise(*log_softmax_tails(outputs)))


class NFL(ClassLoss):
    """Normalised focal loss: (1 - p_y)^γ log p_y / Σ_k (1 - p_k)^γ log p_k with p = softmax(z). γ = 0 is NCE.

    Args:
        detach_focus: treat the (1 - p_k)^γ as constants, as the code published with the paper does. The value is the
            same, but the update is then the gradient of no function.
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
            source=_SOURCE,
            high="1",
            uniform="1 / K",
            symmetric="1" if self.weight is None else None,
            note=_PASSIVE,
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        log_p, log_rest = log_softmax_tails(outputs)
        surprise = _log_surprise(log_p, log_rest)
        if self.detach_focus:
            log_rest = log_rest.detach()
        return _shares(self.gamma * log_rest + surprise)


def _shares(log_costs: Tensor) -> Tensor:
    """The shares costs / costs.sum(1), computed from the logarithms of the costs → (N, C).

    This is a softmax: no cost underflows before it is normalised, and a share near 1 keeps its gradient.
    """
    return log_softmax_tails(log_costs)[0].exp()


def _log_surprise(log_p: Tensor, log_rest: Tensor) -> Tensor:
    """log(-log p) → (N, C). Where p rounds to 1, -log p is r + r²/2 with r = 1 - p."""
    near_1 = log_rest < _LOG_REST_NEAR_1
    # where() differentiates both sides, so each gets valid arguments.
    series = log_rest + torch.log1p(log_rest.where(near_1, _LOG_REST_NEAR_1).exp() / 2)
    return torch.where(near_1, series, torch.log(-log_p.where(~near_1, -1.0)))


_LOG_REST_NEAR_1 = -20.0
