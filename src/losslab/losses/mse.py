"""Squared error."""

from torch import Tensor

from losslab.losses.base import ResidualLoss
from losslab.losses.card import Card, Slope


class MSE(ResidualLoss):
    """Mean squared error: r², r = z - t, averaged over the outputs of an example.

    Estimates the conditional mean. On class probabilities it gives the least-squares classifier.
    """

    @property
    def card(self) -> Card:
        """One parabola."""
        return Card(
            formula=r"(z - t)^2",
            plain="(z - t)²",
            source="Gauss, Theoria motus corporum coelestium, 1809",
            near=Slope.FADES,
            far=Slope.GROWS,
            convex=True,
            elicits="mean",
            note="The gradient of an outlier grows with its distance.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        """r²."""
        return residual.square()
