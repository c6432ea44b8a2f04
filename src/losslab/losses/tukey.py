"""Tukey's biweight."""

import torch
from torch import Tensor

from losslab.losses.base import ResidualLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter


class Tukey(ResidualLoss):
    """Tukey's biweight (or bisquare): c²/6 (1 - (1 - (r/c)²)³) where |r| ≤ c, c²/6 beyond; r = z - t.

    Averaged over the outputs of an example. r²/2 near the target; beyond c an outlier has no gradient.
    """

    c: float | Tensor = hyperparameter(
        "c, the residual from which on examples are ignored, in units of the target",
        "(0, inf)",
        "95 % efficiency for Gaussian noise of standard deviation 1",
        (2.0, 4.685, 10.0),
        default=4.685,
    )

    @property
    def card(self) -> Card:
        """A bowl with a flat surrounding."""
        return Card(
            formula=r"\begin{cases} \frac{c^2}{6} \bigl(1 - (1 - (r/c)^2)^3\bigr) & \lvert r\rvert \le c \\"
            r" \frac{c^2}{6} & \text{else} \end{cases} \quad r = z - t",
            plain="c²/6 (1 - (1 - (r/c)²)³) if |r| ≤ c, else c²/6; r = z - t",
            source="Beaton & Tukey, The fitting of power series, meaning polynomials, illustrated on "
            "band-spectroscopic data, 1974",
            near=Slope.FADES,
            far=Slope.ZERO,
            convex=False,
            high="c**2 / 6",
            note="If all residuals exceed c, nothing is learnt: start from the solution of another loss or with a "
            "large c, and scale c to the noise.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        """The loss of each residual."""
        share = (residual / self.c).clamp(-1, 1).square()
        # With s = (r/c)², 1 - (1 - s)³ has an exact slope near s = 1, and s (3 - 3 s + s²) an exact value near 0.
        bowl = torch.where(share < 0.5, share * (3 + share * (share - 3)), 1 - (1 - share) ** 3)
        return self.c * (self.c * bowl) / 6
