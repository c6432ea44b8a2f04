"""Functions whose values and gradients stay accurate where the usual formula loses digits."""

import torch
from torch import Tensor


def expm1(x: Tensor) -> Tensor:
    """Return exp(x) - 1, with the exact gradient exp(x) even where x is far below 0.

    torch.expm1 computes its gradient as value + 1, which is 0 where the value rounds to -1.
    """
    below = x < -0.5
    # where() differentiates both sides, so exp must not overflow at a large x, where its side is not used.
    return torch.where(below, x.clamp(max=0).exp() - 1, torch.expm1(x))


def expm1_over(k: Tensor, x: Tensor) -> Tensor:
    """Return (exp(k x) - 1)/k, or its limit x at k = 0. It is differentiable with respect to k and x."""
    u = k * x
    small = u.abs() < 0.1
    # where() differentiates both sides, so each side gets arguments at which its gradient is finite.
    return torch.where(small, x * _series(u.where(small, 0)), expm1(u.where(~small, 1)) / k.where(~small, 1))


def sqrt1p_square_minus_1(x: Tensor) -> Tensor:
    """Return √(1 + x²) - 1. It is exact for tiny x, and no square overflows."""
    return x * (x / (1 + torch.hypot(x, torch.ones_like(x))))


def log1p_square(x: Tensor) -> Tensor:
    """Return log(1 + x²). It is exact for tiny x, and no square overflows."""
    return 2 * torch.log1p(sqrt1p_square_minus_1(x))


def _series(u: Tensor) -> Tensor:
    """Return (exp(u) - 1)/u for |u| < 0.1: 1 + u/2 + u²/6 + ... up to the resolution of float64."""
    total = torch.ones_like(u)
    for n in range(9, 1, -1):
        total = 1 + u / n * total
    return total


def log_softmax_tails(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p and log(1 - p), (N, C) each, of p = softmax(outputs), accurate also near p = 0 and p = 1.

    torch's log-softmax rounds log p and its gradient to 0 where 1 - p is below the resolution of the dtype, in float32
    from a margin of 17. This function subtracts the largest output of each example first, so no digits cancel.
    """
    top = outputs.argmax(1, keepdim=True)
    is_top = torch.zeros_like(outputs, dtype=torch.bool).scatter(1, top, value=True)
    # For the largest output itself this is the constant 0, so that no gradients of 1 and -1 need to cancel.
    below_top = (outputs - outputs.gather(1, top)).masked_fill(is_top, 0)
    # The logarithm of odds = (1 - p_top) / p_top, so that p_top = 1 / (1 + odds).
    log_odds = torch.logsumexp(below_top.masked_fill(is_top, -torch.inf), dim=1, keepdim=True)
    log_p = below_top - torch.log1p(log_odds.exp())
    # where() differentiates both sides, so `others` must have a finite gradient at the largest output too.
    others = torch.log1p(-log_p.masked_fill(is_top, -torch.inf).exp())
    return log_p, torch.where(is_top, log_odds + log_p, others)


def sum_of_others(values: Tensor) -> Tensor:
    """Return for each k the sum of the other columns, Σ_{j ≠ k} v_j, of values v ≥ 0 (N, C). No digits cancel."""
    top = values.argmax(1, keepdim=True)
    is_top = torch.zeros_like(values, dtype=torch.bool).scatter(1, top, value=True)
    others = values.masked_fill(is_top, 0).sum(1, keepdim=True)
    return torch.where(is_top, others, values.sum(1, keepdim=True) - values)


def scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """Convert a number to a 0-dim tensor with the dtype and device of `like`, without a host-device sync."""
    return value.to(like) if isinstance(value, Tensor) else like.new_full((), value)


def log_tempered_softmax(outputs: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return log p, and 1 - p itself, of the tempered softmax p = [1 + (1 - t) (z - λ)]^(1/(1 - t)), (N, C) each.

    λ is the number for which Σ_k p_k = 1. It has no closed form: a fixed number of Newton steps finds it. t is in
    [1, 10]; t = 1 is the softmax.
    """
    s = scalar(t - 1, outputs)
    top = outputs.argmax(1, keepdim=True)
    is_top = torch.zeros_like(outputs, dtype=torch.bool).scatter(1, top, value=True)
    # Distances below the largest output, ≥ 0. That of the largest itself is constant, as in log_softmax_tails.
    distance = (outputs - outputs.gather(1, top)).neg().masked_fill(is_top, 0)
    excess = torch.zeros_like(distance[:, :1])
    for _ in range(12):  # 10 steps were enough for 2 to 50,000 classes, t from 1 to 10, and distances up to 1e8
        excess = _newton_step(excess, distance.detach(), s.detach())
    # The loop above is not differentiated. One Newton step from the solution has the derivative of the solution
    # (implicit function theorem); two steps have its second derivative too.
    for _ in range(2):
        excess = _newton_step(excess, distance, s)
    log_p = -_scaled_log1p(s, distance + excess)
    others = log_p.exp().masked_fill(is_top, 0).sum(1, keepdim=True)
    return log_p, torch.where(is_top, others, -expm1(log_p))


def _newton_step(excess: Tensor, distance: Tensor, s: Tensor) -> Tensor:
    """Return a better estimate (N, 1) of the excess λ - max z, by a Newton step for (Σ_k p_k)^(-s) = 1.

    s is t - 1, `distance` is max z - z (N, C), and the first estimate is 0. The left side of the equation is concave
    in λ, so steps never overshoot; if all z are equal, one step is enough.
    """
    log_p = -_scaled_log1p(s, distance + excess)
    log_sum = torch.logsumexp(log_p, dim=1, keepdim=True)
    slope = torch.logsumexp((1 + s) * log_p, dim=1, keepdim=True)
    return excess + _scaled_expm1(s, log_sum) * torch.exp(log_sum - slope)


_SMALL = 0.05
"""The functions below use a power series where |v| is less than this."""
_LOG1P = tuple((-1) ** n / (n + 1) for n in range(13))
"""Taylor coefficients of log(1 + v) / v. For |v| < 0.05 the sum has the precision of float64."""
_EXPM1 = (1.0, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040, 1 / 40320, 1 / 362880)
"""Taylor coefficients of (e^v - 1) / v. For |v| < 0.05 the sum has the precision of float64."""


def _scaled_log1p(s: Tensor, u: Tensor) -> Tensor:
    """Return log(1 + s u) / s for u ≥ 0, or its limit u at s = 0."""
    v = s * u
    return torch.where(v < _SMALL, u * _power_series(v, _LOG1P), torch.log1p(v) / s.where(s > 0, 1.0))


def _scaled_expm1(s: Tensor, u: Tensor) -> Tensor:
    """Return (e^(s u) - 1) / s for u ≥ 0 (up to rounding), or its limit u at s = 0."""
    v = s * u
    return torch.where(v.abs() < _SMALL, u * _power_series(v, _EXPM1), torch.expm1(v) / s.where(s > 0, 1.0))


def tempered_surprisal(log_p: Tensor, r: Tensor) -> Tensor:
    """Return -log_t p = (1 - p^r) / r with r = 1 - t ≥ 0, or its limit -log p at r = 0."""
    v = r * log_p
    return torch.where(v > -_SMALL, -log_p * _power_series(v, _EXPM1), -expm1(v) / r.where(r > 0, 1.0))


def _power_series(v: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Return Σ_n coefficients[n] v^n for |v| < 0.05, and a finite number for other v, which the callers discard."""
    v = v.where(v.abs() < _SMALL, 0)
    total = torch.full_like(v, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * v + coefficient
    return total
