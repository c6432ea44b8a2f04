"""Squared and absolute error."""

from torch import Tensor

from losslab.losses.base import ResidualLoss
from losslab.losses.card import Card, Slope


class MSE(ResidualLoss):
    """Mean squared error: r², r = z - t, averaged over the outputs of an example.

    Estimates the conditional mean. On class probabilities it gives the least-squares classifier.
    """

    card = Card(
        formula=r"(z - t)^2",
        plain="(z - t)²",
        source="Gauss, Theoria motus corporum coelestium, 1809",
        far=Slope.GROWS,
        convex=True,
        elicits="mean",
        note="The gradient of an outlier grows with its distance.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        return residual.square()


class L1(ResidualLoss):
    """Mean absolute error: |r|, r = z - t, averaged over the outputs of an example.

    Estimates the conditional median, so a few outliers change it little.
    """

    card = Card(
        formula=r"\lvert z - t\rvert",
        plain="|z - t|",
        source="Laplace, Mémoire sur la probabilité des causes par les évènements, 1774",
        near=Slope.STAYS,
        far=Slope.STAYS,
        convex=True,
        elicits="median",
        note="The gradient is ±1 at every distance, and 0 at the target (torch's convention): steps do not get "
        "smaller near the minimum unless the learning rate does.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        return residual.abs()
