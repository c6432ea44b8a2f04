"""Barron's general robust loss, which holds the squared error and four robust losses."""

from collections.abc import Mapping
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from losslab.losses.base import ResidualLoss
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.numerics import expm1, expm1_over, log1p_square
from losslab.losses.robust import SCALE


class Barron(ResidualLoss):
    """General robust loss: |α - 2|/α · (((r/c)²/|α - 2| + 1)^(α/2) - 1), r = z - t, averaged over the outputs.

    One parameter turns the squared error into ever more robust losses. Exactly, limits included:
    α = 2 is mse/(2c²), 1 is charbonnier, 0 is cauchy, -2 is geman_mcclure, -∞ is welsch.

    A tensor α may be learnt, and may pass 2, where the loss grows faster than the square. Its slope in α is infinite at
    2 (it grows as -log|α - 2|): there the slope is cut at what it is one rounding step away.

    Args:
        alpha: α, how much outliers count: less is more robust.
        c: the residual from which on an example counts as an outlier, in units of the target.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "alpha": Parameter(
            "α, how much outliers count", "[-inf, 2]", "Barron's reference code", (-inf, -2.0, 0.0, 1.0, 1.5, 2.0)
        ),
        "c": SCALE,
    }
    alpha: float | Tensor
    c: float | Tensor

    def __init__(self, alpha: float | Tensor = 1.0, c: float | Tensor = 1.0) -> None:
        super().__init__()
        self.set_hyperparameter("alpha", alpha)
        self.set_hyperparameter("c", c)

    @property
    def card(self) -> Card:
        """Convex from α = 1 on, bounded below 0."""
        alpha = float(self.alpha)
        bound = "1" if alpha == -inf else "(alpha - 2) / alpha"
        return Card(
            formula=r"\frac{\lvert\alpha - 2\rvert}{\alpha} \Bigl(\bigl(\tfrac{(r/c)^2}{\lvert\alpha - 2\rvert} + 1"
            r"\bigr)^{\alpha/2} - 1\Bigr), \quad r = z - t",
            plain="|α - 2|/α · (((r/c)²/|α - 2| + 1)^(α/2) - 1); r = z - t",
            source="Barron, A general and adaptive robust loss function, 2019",
            near=Slope.FADES,
            far=Slope.GROWS if alpha > 1 else Slope.STAYS if alpha == 1 else Slope.FADES,
            convex=alpha >= 1,
            high=bound if alpha < 0 else "oo",
            elicits="mean" if alpha == 2 else None,
            note="Below α = 1 it is not convex: start near the target, with a large c, or let α fall in the course of "
            "training. Minimised over α as well, α only falls, unless the normaliser of the density is added.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        """The loss of each residual."""
        x = residual / self.c
        alpha = torch.as_tensor(self.alpha, dtype=x.dtype, device=x.device)
        # Neither form keeps its digits everywhere. where() differentiates both: each gets its own safe arguments.
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
    """The loss as (e^(k m) - 1)/k → the shape of x. Only its slope in α is inexact near α = 2.

    b = |α - 2|, k = α/b and m = b log(x²/b + 1)/2. At α = 0, where k = 0, it is m; as α → ±∞, k → ±1 and m → x²/2.
    """
    # What is infinite is as good as 1/ε^1.5: by then the loss differs from its limit by less than rounding.
    most = torch.finfo(x.dtype).eps ** -1.5
    alpha = alpha.clamp(-most, most)
    b = _distance_to_2(alpha)
    return expm1_over(alpha / b, b / 2 * log1p_square(x / b.sqrt()))


def _distance_to_2(alpha: Tensor) -> Tensor:
    """|α - 2|, and one rounding step at α = 2, where it divides what vanishes with it."""
    return (alpha - 2).abs().clamp(min=torch.finfo(alpha.dtype).eps)
