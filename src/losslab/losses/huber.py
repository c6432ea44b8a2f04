"""Huber's loss and its rescaled form, smooth L1."""

import torch
from torch import Tensor

from losslab.losses.base import at_least, mean_over_outputs
from losslab.losses.mse import EstimatesTarget


class Huber(EstimatesTarget):
    """Huber loss: r²/2 where |r| ≤ δ, δ (|r| - δ/2) beyond, r = z - t, averaged over the outputs of an example.

    Quadratic near the target, linear far from it. Huber, "Robust estimation of a location parameter", 1964.

    Args:
        delta: where the loss turns from quadratic to linear, in units of the target; > 0.
    """

    delta: float | Tensor

    def __init__(self, delta: float | Tensor = 1.0) -> None:
        super().__init__()
        self.hold("delta", at_least("huber's delta", delta, 0.0, strictly=True))

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, D), (N, D) → (N,)."""
        distance = (outputs - target).abs()
        # With q = min(|r|, δ) both branches are q (|r| - q/2): no branch on values, and a gradient for a tensor δ.
        near = distance.clamp(max=self.delta)
        return mean_over_outputs(near * (distance - near / 2))


class SmoothL1(EstimatesTarget):
    """Smooth L1 loss: r²/(2β) where |r| ≤ β, |r| - β/2 beyond, r = z - t: Huber's loss divided by its δ = β.

    As β goes to 0 it becomes L1, which it is at β = 0. Girshick, "Fast R-CNN", 2015 (β = 1).

    Args:
        beta: where the loss turns from quadratic to linear, in units of the target; ≥ 0.
    """

    beta: float | Tensor

    def __init__(self, beta: float | Tensor = 1.0) -> None:
        super().__init__()
        self.hold("beta", at_least("smooth_l1's beta", beta, 0.0))

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, D), (N, D) → (N,)."""
        distance = (outputs - target).abs()
        near = distance.clamp(max=self.beta)
        beta = torch.as_tensor(self.beta, dtype=distance.dtype, device=distance.device)
        # near ≤ β, so the quotient is at most 1; only 0/0 at β = 0 needs a stand-in, and there near is 0 anyway.
        share = near / torch.where(beta > 0, beta, 1.0)
        return mean_over_outputs(share * (distance - near / 2) + (1 - share) * distance * (beta <= 0))
