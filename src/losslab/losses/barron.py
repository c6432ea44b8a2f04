"""Barron's general robust loss, of which the squared error and four robust losses are special cases."""

from math import inf

import torch
from torch import Tensor

from losslab.losses.base import ResidualLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import expm1, expm1_over, log1p_square
from losslab.losses.robust import SCALE


class Barron(ResidualLoss):
    """General robust loss: |α - 2|/α · (((r/c)²/|α - 2| + 1)^(α/2) - 1), r = z - t, averaged over the outputs.

    One parameter turns the squared error into increasingly robust losses. The special cases are exact, limits included:
    α = 2 is mse/(2c²), 1 is charbonnier, 0 is cauchy, -2 is geman_mcclure, -∞ is welsch.

    A tensor α may be learnt, and may exceed 2, where the loss grows faster than the square. At α = 2 the derivative by
    α is infinite (it grows as -log|α - 2|); there the derivative at one rounding step from 2 is used.
    """

    alpha: float | Tensor = hyperparameter(
        "α, the influence of outliers: less is more robust",
        "[-inf, 2]",
        "Barron's reference code",
        (-inf, -2.0, 0.0, 1.0, 1.5, 2.0),
        default=1.0,
    )
    c: float | Tensor = hyperparameter(*SCALE, default=1.0)

    @property
    def card(self) -> Card:
        alpha = float(self.alpha)
        bound = "1" if alpha == -inf else "(alpha - 2) / alpha"
        return Card(
            formula=r"\frac{\lvert\alpha - 2\rvert}{\alpha} \Bigl(\bigl(\tfrac{(r/c)^2}{\lvert\alpha - 2\rvert} + 1"
            r"\bigr)^{\alpha/2} - 1\Bigr), \quad r = z - t",
            plain="|α - 2|/α · (((r/c)²/|α - 2| + 1)^(α/2) - 1); r = z - t",
            source="Barron, A general and adaptive robust loss function, 2019",
            far=Slope.GROWS if alpha > 1 else Slope.STAYS if alpha == 1 else Slope.FADES,
            convex=alpha >= 1,
            high=bound if alpha < 0 else "oo",
            elicits="mean" if alpha == 2 else None,
            note="Below α = 1 it is not convex: start near the target, with a large c, or let α fall during training. "
            "If α is learnt too, it only falls, unless the normaliser of the density is added.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        x = residual / self.c
        alpha = torch.as_tensor(self.alpha, dtype=x.dtype, device=x.device)
        # Neither form is accurate everywhere. where() differentiates both, so each gets arguments that are safe for it.
        square = ((alpha - 2).abs() < 0.5) & (x.abs() < torch.finfo(x.dtype).max ** 0.4)
        return torch.where(
            square,
            near_2(x.where(square, 0), torch.where(square, alpha, 2.0)),
            elsewhere(x, torch.where(square, 0.0, alpha)),
        )


def near_2(x: Tensor, alpha: Tensor) -> Tensor:
    """The loss for |α - 2| ≤ 1, as a square with a correction: (x² e^v + b (e^v - 1)) / α → the shape of x.

    b = |α - 2| and v = (α/2 - 1) log(x²/b + 1), which vanishes with b.
    """
    excess = alpha - 2
    b = _distance_to_2(alpha)
    v = excess / 2 * log1p_square(x / b.sqrt())
    return (x * (x * v.exp()) + b * expm1(v)) / alpha


def elsewhere(x: Tensor, alpha: Tensor) -> Tensor:
    """The loss as (e^(k m) - 1)/k → the shape of x. Only its derivative by α is inexact near α = 2.

    b = |α - 2|, k = α/b and m = b log(x²/b + 1)/2. At α = 0, where k = 0, it is m; as α → ±∞, k → ±1 and m → x²/2.
    """
    # An infinite α is replaced by 1/ε^1.5, where the loss differs from its limit by less than rounding.
    limit = torch.finfo(x.dtype).eps ** -1.5
    alpha = alpha.clamp(-limit, limit)
    b = _distance_to_2(alpha)
    return expm1_over(alpha / b, b / 2 * log1p_square(x / b.sqrt()))


def _distance_to_2(alpha: Tensor) -> Tensor:
    """|α - 2|, but at least one rounding step, because the loss divides by it."""
    return (alpha - 2).abs().clamp(min=torch.finfo(alpha.dtype).eps)
