"""Squared and absolute error, and their asymmetric forms: expectile and quantile."""

import torch
from torch import Tensor

from losslab.losses.base import ResidualLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter

_LEVEL = "τ, the weight of targets above the prediction; targets below have 1 - τ"


class MSE(ResidualLoss):
    """Mean squared error: r², r = z - t, averaged over the outputs of an example.

    The outputs estimate the conditional mean. With class probabilities as targets it is the least-squares classifier.
    """

    card = Card(
        formula=r"(z - t)^2",
        plain="(z - t)²",
        source="Gauss, Theoria motus corporum coelestium, 1809",
        far=Slope.GROWS,
        convex=True,
        elicits="mean",
        note="The gradient of an outlier increases with its distance.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        return residual.square()


class L1(ResidualLoss):
    """Mean absolute error: |r|, r = z - t, averaged over the outputs of an example.

    The outputs estimate the conditional median, which a few outliers change little.
    """

    card = Card(
        formula=r"\lvert z - t\rvert",
        plain="|z - t|",
        source="Laplace, Mémoire sur la probabilité des causes par les évènements, 1774",
        near=Slope.STAYS,
        far=Slope.STAYS,
        convex=True,
        elicits="median",
        note="The gradient is ±1 at every distance, and 0 at the target, as in torch. Steps get smaller near the "
        "minimum only if the learning rate decreases.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        return residual.abs()


class Quantile(ResidualLoss):
    """Quantile (or pinball) loss: τ |r| where the target is above, (1 - τ) |r| where it is below; r = z - t.

    It is averaged over the outputs of an example. Its minimum is the τ-quantile of the target. Two quantiles bound an
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
            note="The metrics mse and mae measure means and medians: at other τ they rise while the loss falls.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        return (1 - self.tau) * residual.relu() + self.tau * (-residual).relu()


class Expectile(ResidualLoss):
    """Expectile loss: τ r² where the target is above, (1 - τ) r² where it is below; r = z - t.

    It is averaged over the outputs of an example. An expectile is to the mean what a quantile is to the median. The
    loss is smooth, and sensitive to the distance of outliers. τ = 1/2 is half the squared error.
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
            note="Offline reinforcement learning (IQL, Kostrikov et al. 2022) uses τ of 0.7 to 0.9. The loss is as "
            "sensitive to outliers as the squared error.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        square = residual.square()
        return torch.where(residual < 0, self.tau * square, (1 - self.tau) * square)
