"""Losses that weigh the two sides of the target differently: quantile and expectile."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from losslab.losses.base import ResidualLoss
from losslab.losses.card import Card, Parameter, Slope

_LEVEL = "τ, the weight of targets above the prediction"


class Quantile(ResidualLoss):
    """Quantile (or pinball) loss: τ |r| where the target is above, (1 - τ) |r| where it is below; r = z - t.

    Averaged over the outputs of an example. Its minimum is the τ-quantile of the target: two of them bound an
    interval that holds a given share of the targets. τ = 1/2 is half the absolute error.

    Args:
        tau: τ, the share of the targets that shall lie below the prediction.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "tau": Parameter(_LEVEL, "(0, 1)", "scikit-learn's GradientBoostingRegressor", (0.1, 0.5, 0.9)),
    }
    tau: float | Tensor

    def __init__(self, tau: float | Tensor = 0.9) -> None:
        super().__init__()
        self.set_hyperparameter("tau", tau)

    @property
    def card(self) -> Card:
        """Two straight lines of different slopes."""
        tau = float(self.tau)
        return Card(
            formula=r"\max(\tau (t - z),\ (\tau - 1) (t - z))",
            plain="τ (t - z) if t > z, else (1 - τ) (z - t)",
            source="Koenker & Bassett, Regression quantiles, 1978",
            near=Slope.STAYS,
            far=Slope.STAYS,
            convex=True,
            elicits="median" if tau == 0.5 else f"{tau:g}",
            note="The yardsticks mse and mae compare with means and medians: for other τ they rise as the loss falls.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        """(1 - τ) r above the target, -τ r below."""
        return (1 - self.tau) * residual.relu() + self.tau * (-residual).relu()


class Expectile(ResidualLoss):
    """Expectile loss: τ r² where the target is above, (1 - τ) r² where it is below; r = z - t.

    Averaged over the outputs of an example. What a quantile is to the median, an expectile is to the mean; smooth,
    and sensitive to how far outliers are. τ = 1/2 is half the squared error.

    Args:
        tau: τ, how much targets above the prediction count against those below.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "tau": Parameter(_LEVEL, "(0, 1)", "as for quantile", (0.1, 0.5, 0.9)),
    }
    tau: float | Tensor

    def __init__(self, tau: float | Tensor = 0.9) -> None:
        super().__init__()
        self.set_hyperparameter("tau", tau)

    @property
    def card(self) -> Card:
        """Two half parabolas of different widths."""
        return Card(
            formula=r"\lvert \tau - \mathbf{1}[z > t] \rvert\, (z - t)^2",
            plain="τ (t - z)² if t > z, else (1 - τ) (z - t)²",
            source="Newey & Powell, Asymmetric least squares estimation and testing, 1987",
            near=Slope.FADES,
            far=Slope.GROWS,
            convex=True,
            elicits="mean" if float(self.tau) == 0.5 else None,
            note="Offline reinforcement learning (IQL, Kostrikov et al. 2022) uses it with τ of 0.7 to 0.9. It has "
            "squared error's sensitivity to outliers.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        """(1 - τ) r² above the target, τ r² below."""
        square = residual.square()
        return torch.where(residual < 0, self.tau * square, (1 - self.tau) * square)
