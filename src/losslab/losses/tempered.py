"""The tempered softmax, and what else tempered logarithms need, exact for all temperatures from 1 on."""

import torch
from torch import Tensor

from losslab.losses.precise import expm1
from losslab.losses.softmax import scalar

_STEPS = 12
"""Newton's method below was at its last digit after 10, for 2 to 50,000 classes, t from 1 to 10, distances to 1e8."""


def log_tempered_softmax(outputs: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of p = exp_t(z - λ) = [1 + (1 - t) (z - λ)]^(1/(1 - t)), λ such that Σ_k p_k = 1, and 1 - p.

    t is in [1, 10]; at 1 this is the softmax. λ has no closed form: a fixed number of Newton's steps finds it.
    """
    s = scalar(t - 1, outputs)
    top = outputs.argmax(1, keepdim=True)
    is_top = torch.zeros_like(outputs, dtype=torch.bool).scatter(1, top, value=True)
    # Of the largest from itself it is the constant 0, lest a gradient of 1 be added and taken away again.
    distance = (outputs - outputs.gather(1, top)).neg().masked_fill(is_top, 0)
    excess = torch.zeros_like(distance[:, :1])
    for _ in range(_STEPS):
        excess = _step(excess, distance.detach(), s.detach())
    # At the solution a step differs from it only in second order, so its derivative is the solution's: the implicit
    # function theorem. After a second one the second derivatives are right too.
    for _ in range(2):
        excess = _step(excess, distance, s)
    log_p = -_log1p_over(s, distance + excess)
    others = log_p.exp().masked_fill(is_top, 0).sum(1, keepdim=True)
    return log_p, torch.where(is_top, others, -expm1(log_p))


def _step(excess: Tensor, distance: Tensor, s: Tensor) -> Tensor:
    """One of Newton's steps towards the excess λ - max z at which the p sum to 1, from below.

    For (Σ_k p_k)^(-s), which is concave in λ: so the steps never overshoot, and one is enough where all z are equal.
    """
    log_p = -_log1p_over(s, distance + excess)
    log_sum = torch.logsumexp(log_p, dim=1, keepdim=True)
    slope = torch.logsumexp((1 + s) * log_p, dim=1, keepdim=True)
    return excess + _expm1_over(s, log_sum) * torch.exp(log_sum - slope)


def _log1p_over(s: Tensor, u: Tensor) -> Tensor:
    """log(1 + s u) / s for u ≥ 0, which is u at s = 0."""
    v = s * u
    return torch.where(v < _SMALL, u * _series(v, _LOG1P), torch.log1p(v) / s.where(s > 0, 1.0))


def _expm1_over(s: Tensor, u: Tensor) -> Tensor:
    """(e^(s u) - 1) / s for u ≥ 0 or nearly, which is u at s = 0."""
    v = s * u
    return torch.where(v.abs() < _SMALL, u * _series(v, _EXPM1), torch.expm1(v) / s.where(s > 0, 1.0))


def tempered_surprise(log_p: Tensor, r: Tensor) -> Tensor:
    """-log_t p = (1 - p^r) / r with r = 1 - t ≥ 0, which is -log p at r = 0: (N, C) → (N, C)."""
    v = r * log_p
    return torch.where(v > -_SMALL, -log_p * _series(v, _EXPM1), -expm1(v) / r.where(r > 0, 1.0))


def _series(v: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """The polynomial where v is small; elsewhere it is not looked at, but must be finite: where() differentiates it."""
    v = v.where(v.abs() < _SMALL, 0)
    total = torch.full_like(v, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * v + coefficient
    return total


_SMALL = 0.05
_LOG1P = tuple((-1) ** n / (n + 1) for n in range(13))
"""log(1 + v) / v, to the last digit of float64 for |v| < 0.05."""
_EXPM1 = (1.0, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040, 1 / 40320, 1 / 362880)
"""(e^v - 1) / v, likewise."""
