"""Absolute error."""

from torch import Tensor

from losslab.losses.base import mean_over_outputs
from losslab.losses.mse import EstimatesTarget


class L1(EstimatesTarget):
    """Mean absolute error: |z - t|, averaged over the outputs of an example.

    Estimates the conditional median, so a minority of outliers moves it little. Its gradient is ±1 at every distance
    and 0 at the target itself (torch's convention). Laplace 1774.
    """

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, D), (N, D) → (N,)."""
        return mean_over_outputs((outputs - target).abs())
