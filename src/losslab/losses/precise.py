"""Functions whose values and slopes keep their digits where the plain formula loses them."""

import torch
from torch import Tensor

_TERMS = 9  # of a series in u that is used for |u| < 0.1: the next is below float64's resolution


def expm1(x: Tensor) -> Tensor:
    """exp(x) - 1 → the same shape, with a slope exp(x) that keeps its digits where x is far below 0.

    torch.expm1 takes its slope from its value, as value + 1, of which nothing is left once the value rounds to -1.
    """
    below = x < -0.5
    return torch.where(below, x.clamp(max=0).exp() - 1, torch.expm1(x))


def expm1_over(k: Tensor, x: Tensor) -> Tensor:
    """(exp(k x) - 1)/k → the shape of x, with slopes in both; x where k = 0."""
    u = k * x
    small = u.abs() < 0.1
    # where() differentiates both sides: each gets arguments at which it is finite.
    return torch.where(small, x * _series(u.where(small, 0)), expm1(u.where(~small, 1)) / k.where(~small, 1))


def hypotenuse_less_1(x: Tensor) -> Tensor:
    """√(x² + 1) - 1 → the same shape: exact for tiny x, and no square overflows."""
    return x * (x / (1 + torch.hypot(x, torch.ones_like(x))))


def log1p_square(x: Tensor) -> Tensor:
    """log(1 + x²) → the same shape: exact for tiny x, and no square overflows."""
    return 2 * torch.log1p(hypotenuse_less_1(x))


def _series(u: Tensor) -> Tensor:
    """(exp(u) - 1)/u for |u| < 0.1 → the same shape: 1 + u/2 + u²/6 + ..."""
    total = torch.ones_like(u)
    for n in range(_TERMS, 1, -1):
        total = 1 + u / n * total
    return total
