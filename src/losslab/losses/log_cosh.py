"""Log-cosh loss."""

from math import log

import torch
from torch import Tensor

from losslab.losses.base import ResidualLoss
from losslab.losses.card import Card, Slope


class LogCosh(ResidualLoss):
    """Log-cosh loss: log cosh r, r = z - t, averaged over the outputs of an example.

    r²/2 near the target, |r| - log 2 far from it, and smooth between. Its scale is fixed: standardise the target.
    """

    @property
    def card(self) -> Card:
        """A parabola near the target, straight lines far from it."""
        return Card(
            formula=r"\log\cosh r, \quad r = z - t",
            plain="log(cosh(r)); r = z - t",
            source="Green, Bayesian reconstructions from emission tomography data using a modified EM algorithm, 1990",
            near=Slope.FADES,
            far=Slope.STAYS,
            convex=True,
            note="The gradient is tanh r. It is twice differentiable everywhere, unlike the Huber loss.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        """Log cosh of each residual."""
        distance = residual.abs()
        # cosh r = 1 + 2 sinh²(r/2) is exact for a tiny r, but overflows for a large one.
        small = distance < 1
        near = torch.log1p(2 * torch.sinh(residual.where(small, 0) / 2).square())
        far = distance + torch.log1p(torch.exp(-2 * distance)) - log(2)
        return torch.where(small, near, far)
