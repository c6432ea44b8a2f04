"""Huber's loss and its rescaled form, smooth L1."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from losslab.losses.base import ResidualLoss
from losslab.losses.card import Card, Parameter, Slope


class Huber(ResidualLoss):
    """Huber loss: r²/2 where |r| ≤ δ, δ (|r| - δ/2) beyond, r = z - t, averaged over the outputs of an example.

    Quadratic near the target, linear far from it.

    Args:
        delta: δ, where the loss turns from quadratic to linear, in units of the target.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "delta": Parameter("δ, where the parabola ends", "(0, inf)", "torch.nn.HuberLoss", (0.3, 1.0, 3.0)),
    }
    delta: float | Tensor

    def __init__(self, delta: float | Tensor = 1.0) -> None:
        super().__init__()
        self.set_hyperparameter("delta", delta)

    @property
    def card(self) -> Card:
        """A parabola that goes on as two straight lines."""
        return Card(
            formula=r"\begin{cases} \frac{1}{2} r^2 & \lvert r\rvert \le \delta \\"
            r" \delta (\lvert r\rvert - \frac{\delta}{2}) & \text{else} \end{cases} \quad r = z - t",
            plain="r²/2 if |r| ≤ δ, else δ (|r| - δ/2); r = z - t",
            source="Huber, Robust estimation of a location parameter, 1964",
            near=Slope.FADES,
            far=Slope.STAYS,
            convex=True,
            note="The gradient far out is δ: a small δ slows learning as well as limiting outliers.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        """r²/2, and its tangents from δ on."""
        # With q = r cut off at ±δ both branches are q (r - q/2): no branch on values, a gradient for a tensor δ, and a
        # second derivative at 0 too, which |r| would not leave.
        end: Any = self.delta  # clamp takes two numbers or two tensors, which its annotations cannot say
        near = residual.clamp(-end, end)
        return near * (residual - near / 2)


class SmoothL1(ResidualLoss):
    """Smooth L1 loss: r²/(2β) where |r| ≤ β, |r| - β/2 beyond, r = z - t: Huber's loss divided by its δ = β.

    As β goes to 0 it becomes L1, which it is at β = 0.

    Args:
        beta: β, where the loss turns from quadratic to linear, in units of the target.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "beta": Parameter("β, where the parabola ends", "[0, inf)", "the paper's", (0.0, 0.3, 1.0, 3.0)),
    }
    beta: float | Tensor

    def __init__(self, beta: float | Tensor = 1.0) -> None:
        super().__init__()
        self.set_hyperparameter("beta", beta)

    @property
    def card(self) -> Card:
        """A parabola that goes on as two straight lines of slope 1."""
        return Card(
            formula=r"\begin{cases} \frac{1}{2\beta} r^2 & \lvert r\rvert \le \beta \\"
            r" \lvert r\rvert - \frac{\beta}{2} & \text{else} \end{cases} \quad r = z - t",
            plain="r²/(2β) if |r| ≤ β, else |r| - β/2; r = z - t",
            source="Girshick, Fast R-CNN, 2015",
            near=Slope.FADES if float(self.beta) > 0 else Slope.STAYS,
            far=Slope.STAYS,
            convex=True,
            elicits=None if float(self.beta) > 0 else "median",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        """r²/(2β), and its tangents from β on."""
        end: Any = self.beta
        near = residual.clamp(-end, end)
        beta = torch.as_tensor(self.beta, dtype=residual.dtype, device=residual.device)
        # |near| ≤ β, so the quotient is at most 1; only 0/0 at β = 0 needs a stand-in, whose value is not taken.
        share = near / torch.where(beta > 0, beta, 1.0)
        return torch.where(beta > 0, share * (residual - near / 2), residual.abs())
