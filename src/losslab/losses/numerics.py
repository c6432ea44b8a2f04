"""Functions whose values and gradients stay accurate where the plain formula loses digits."""

import torch
from torch import Tensor


def expm1(x: Tensor) -> Tensor:
    """exp(x) - 1 → the same shape, with an exact gradient exp(x) even where x is far below 0.

    torch.expm1 computes its gradient as value + 1, which is 0 where the value rounds to -1.
    """
    below = x < -0.5
    return torch.where(below, x.clamp(max=0).exp() - 1, torch.expm1(x))


def expm1_over(k: Tensor, x: Tensor) -> Tensor:
    """(exp(k x) - 1)/k, which is x at k = 0 → the shape of x. It is differentiable with respect to both."""
    u = k * x
    small = u.abs() < 0.1
    # where() differentiates both sides, so each side gets arguments at which it is finite.
    return torch.where(small, x * _series(u.where(small, 0)), expm1(u.where(~small, 1)) / k.where(~small, 1))


def hypotenuse_less_1(x: Tensor) -> Tensor:
    """√(x² + 1) - 1 → the same shape: exact for tiny x, and no square overflows."""
    return x * (x / (1 + torch.hypot(x, torch.ones_like(x))))


def log1p_square(x: Tensor) -> Tensor:
    """log(1 + x²) → the same shape: exact for tiny x, and no square overflows."""
    return 2 * torch.log1p(hypotenuse_less_1(x))


def _series(u: Tensor) -> Tensor:
    """(exp(u) - 1)/u for |u| < 0.1 → the same shape: 1 + u/2 + u²/6 + ... up to the resolution of float64."""
    total = torch.ones_like(u)
    for n in range(9, 1, -1):
        total = 1 + u / n * total
    return total


def log_softmax_tails(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms of p and 1 - p for p = softmax(outputs), to full relative precision: (N, C) → (N, C) each.

    torch's log-softmax rounds log p and its gradient to 0 where 1 - p is below the resolution of the dtype, in float32
    from a margin of 17. This function uses distances from the largest output, so nothing cancels near p = 0 or p = 1.
    """
    top = outputs.argmax(1, keepdim=True)
    is_top = torch.zeros_like(outputs, dtype=torch.bool).scatter(1, top, value=True)
    # The distance of the largest from itself is a constant, so that its gradients of 1 and -1 need not cancel.
    distance = (outputs - outputs.gather(1, top)).masked_fill(is_top, 0)
    # The odds of all other classes together against the largest, so that p_top = 1 / (1 + odds).
    log_odds = torch.logsumexp(distance.masked_fill(is_top, -torch.inf), dim=1, keepdim=True)
    log_p = distance - torch.log1p(log_odds.exp())
    # where() differentiates both sides, so the side that is not used must be finite too.
    small = torch.log1p(-log_p.masked_fill(is_top, -torch.inf).exp())
    return log_p, torch.where(is_top, log_odds + log_p, small)


def sum_of_others(values: Tensor) -> Tensor:
    """The sum of the other values, Σ_{j ≠ k} v_j, for each k: (N, C), all ≥ 0 → (N, C). Nothing cancels."""
    top = values.argmax(1, keepdim=True)
    is_top = torch.zeros_like(values, dtype=torch.bool).scatter(1, top, value=True)
    others = values.masked_fill(is_top, 0).sum(1, keepdim=True)
    return torch.where(is_top, others, values.sum(1, keepdim=True) - values)


def scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """A number as a 0-dim tensor with the dtype and device of `like`, created without a host-device sync → ()."""
    return value.to(like) if isinstance(value, Tensor) else like.new_full((), value)


def log_tempered_softmax(outputs: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
    """The log p and 1 - p of the tempered softmax p = [1 + (1 - t) (z - λ)]^(1/(1 - t)), where λ makes Σ_k p_k = 1.

    t is in [1, 10]; t = 1 is the softmax. λ has no closed form: a fixed number of Newton steps finds it.
    """
    s = scalar(t - 1, outputs)
    top = outputs.argmax(1, keepdim=True)
    is_top = torch.zeros_like(outputs, dtype=torch.bool).scatter(1, top, value=True)
    # The distance of the largest from itself is a constant, as in log_softmax_tails.
    distance = (outputs - outputs.gather(1, top)).neg().masked_fill(is_top, 0)
    excess = torch.zeros_like(distance[:, :1])
    for _ in range(12):  # 10 steps were enough for 2 to 50,000 classes, t from 1 to 10, and distances up to 1e8
        excess = _newton_step(excess, distance.detach(), s.detach())
    # At the solution, a Newton step has the derivative of the solution (implicit function theorem). With a second step
    # the second derivatives are exact too.
    for _ in range(2):
        excess = _newton_step(excess, distance, s)
    log_p = -_log1p_over(s, distance + excess)
    others = log_p.exp().masked_fill(is_top, 0).sum(1, keepdim=True)
    return log_p, torch.where(is_top, others, -expm1(log_p))


def _newton_step(excess: Tensor, distance: Tensor, s: Tensor) -> Tensor:
    """A Newton step, from below, towards the excess λ - max z at which Σ_k p_k = 1.

    The equation is (Σ_k p_k)^(-s) = 1. Its left side is concave in λ, so steps never overshoot; for equal z one step is
    enough.
    """
    log_p = -_log1p_over(s, distance + excess)
    log_sum = torch.logsumexp(log_p, dim=1, keepdim=True)
    slope = torch.logsumexp((1 + s) * log_p, dim=1, keepdim=True)
    return excess + _expm1_over(s, log_sum) * torch.exp(log_sum - slope)


def _log1p_over(s: Tensor, u: Tensor) -> Tensor:
    """log(1 + s u) / s for u ≥ 0, which is u at s = 0."""
    v = s * u
    return torch.where(v < _SMALL, u * _tempered_series(v, _LOG1P), torch.log1p(v) / s.where(s > 0, 1.0))


def _expm1_over(s: Tensor, u: Tensor) -> Tensor:
    """(e^(s u) - 1) / s for u ≥ 0 (up to rounding), which is u at s = 0."""
    v = s * u
    return torch.where(v.abs() < _SMALL, u * _tempered_series(v, _EXPM1), torch.expm1(v) / s.where(s > 0, 1.0))


def tempered_surprise(log_p: Tensor, r: Tensor) -> Tensor:
    """-log_t p = (1 - p^r) / r with r = 1 - t ≥ 0, which is -log p at r = 0: (N, C) → (N, C)."""
    v = r * log_p
    return torch.where(v > -_SMALL, -log_p * _tempered_series(v, _EXPM1), -expm1(v) / r.where(r > 0, 1.0))


def _tempered_series(v: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """The polynomial where v is small; a finite value elsewhere, because where() differentiates it there too."""
    v = v.where(v.abs() < _SMALL, 0)
    total = torch.full_like(v, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * v + coefficient
    return total


_SMALL = 0.05
"""The bound on |v| below which the series are used."""
_LOG1P = tuple((-1) ** n / (n + 1) for n in range(13))
"""Coefficients of log(1 + v) / v, exact in float64 for |v| < 0.05."""
_EXPM1 = (1.0, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040, 1 / 40320, 1 / 362880)
"""Coefficients of (e^v - 1) / v, exact in float64 for |v| < 0.05."""
