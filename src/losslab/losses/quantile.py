"""Losses that weight the two sides of the target differently: quantile and expectile."""

import torch
from torch import Tensor

from losslab.losses.base import ResidualLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter

_LEVEL = "τ, the weight of targets above the prediction; those below have 1 - τ"


class Quantile(ResidualLoss):
    """Quantile (or pinball) loss: τ |r| where the target is above, (1 - τ) |r| where it is below; r = z - t.

    Averaged over the outputs of an example. Its minimum is the τ-quantile of the target: two quantiles bound an
    interval that contains a given share of the targets. τ = 1/2 is half the absolute error.
    """

    tau: float | Tensor = hyperparameter(
        _LEVEL, "(0, 1)", "scikit-learn's GradientBoostingRegressor", (0.1, 0.5, 0.9), default=0.9
    )

    @property
    def card(self) -> Card:
        tau = float(self.tau)
        return Card(
            formula=r"\max(\tau (t - z),\ (\tau - 1) (t - z))",
            plain="τ (t - z) if t > z, else (1 - τ) (z - t)",
            source="Koenker & Bassett, Regression quantiles, 1978",
            near=Slope.STAYS,
            far=Slope.STAYS,
            convex=True,
            elicits="median" if tau == 0.5 else f"{tau:g}",
            note="The metrics mse and mae measure means and medians: for other τ they rise as the loss falls.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        return (1 - self.tau) * residual.relu() + self.tau * (-residual).relu()


class Expectile(ResidualLoss):
    """Expectile loss: τ r² where the target is above, (1 - τ) r² where it is below; r = z - t.

    Averaged over the outputs of an example. An expectile is to the mean what a quantile is to the median; it is smooth,
    and sensitive to the distance of outliers. τ = 1/2 is half the squared error.
    """

    tau: float | Tensor = hyperparameter(_LEVEL, "(0, 1)", "as for quantile", (0.1, 0.5, 0.9), default=0.9)

    @property
    def card(self) -> Card:
        return Card(
            formula=r"\lvert \tau - \mathbf{1}[z > t] \rvert\, (z - t)^2",
            plain="τ (t - z)² if t > z, else (1 - τ) (z - t)²",
            source="Newey & Powell, Asymmetric least squares estimation and testing, 1987",
            far=Slope.GROWS,
            convex=True,
            elicits="mean" if float(self.tau) == 0.5 else None,
            note="Offline reinforcement learning (IQL, Kostrikov et al. 2022) uses it with τ of 0.7 to 0.9. It is as "
            "sensitive to outliers as the squared error.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        square = residual.square()
        return torch.where(residual < 0, self.tau * square, (1 - self.tau) * square)
