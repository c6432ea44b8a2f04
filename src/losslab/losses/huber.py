"""Losses that are quadratic near the target and linear far from it: Huber, smooth L1 and log-cosh."""

from math import log
from typing import Any

import torch
from torch import Tensor

from losslab.losses.base import ResidualLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter


class Huber(ResidualLoss):
    """Huber loss: r²/2 where |r| ≤ δ, δ (|r| - δ/2) beyond, r = z - t, averaged over the outputs of an example.

    Quadratic near the target, linear far from it.
    """

    delta: float | Tensor = hyperparameter(
        "δ, the residual from which on it is linear, in units of the target",
        "(0, inf)",
        "torch.nn.HuberLoss",
        (0.3, 1.0, 3.0),
        default=1.0,
    )

    card = Card(
        formula=r"\begin{cases} \frac{1}{2} r^2 & \lvert r\rvert \le \delta \\"
        r" \delta (\lvert r\rvert - \frac{\delta}{2}) & \text{else} \end{cases} \quad r = z - t",
        plain="r²/2 if |r| ≤ δ, else δ (|r| - δ/2); r = z - t",
        source="Huber, Robust estimation of a location parameter, 1964",
        far=Slope.STAYS,
        convex=True,
        note="The gradient far from the target is δ: a small δ limits outliers, and also slows learning.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        # With q = r clamped to ±δ both branches are q (r - q/2). This form does not branch on values, has a gradient
        # for a tensor δ, and keeps the second derivative at 0, which |r| would lose.
        end: Any = self.delta  # Any: clamp is annotated for two numbers or two tensors only
        near = residual.clamp(-end, end)
        return near * (residual - near / 2)


class SmoothL1(ResidualLoss):
    """Smooth L1 loss: r²/(2β) where |r| ≤ β, |r| - β/2 beyond, r = z - t: Huber's loss divided by its δ = β.

    At β = 0 it is L1.
    """

    beta: float | Tensor = hyperparameter(
        "β, the residual from which on it is linear, in units of the target",
        "[0, inf)",
        "the paper's",
        (0.0, 0.3, 1.0, 3.0),
        default=1.0,
    )

    @property
    def card(self) -> Card:
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
        end: Any = self.beta
        near = residual.clamp(-end, end)
        beta = torch.as_tensor(self.beta, dtype=residual.dtype, device=residual.device)
        # |near| ≤ β, so the quotient is at most 1. At β = 0 it would be 0/0: there it is divided by 1, and not used.
        share = near / torch.where(beta > 0, beta, 1.0)
        return torch.where(beta > 0, share * (residual - near / 2), residual.abs())


class LogCosh(ResidualLoss):
    """Log-cosh loss: log cosh r, r = z - t, averaged over the outputs of an example.

    r²/2 near the target, |r| - log 2 far from it, and smooth between. Its scale is fixed: standardise the target.
    """

    card = Card(
        formula=r"\log\cosh r, \quad r = z - t",
        plain="log(cosh(r)); r = z - t",
        source="Green, Bayesian reconstructions from emission tomography data using a modified EM algorithm, 1990",
        far=Slope.STAYS,
        convex=True,
        note="The gradient is tanh r. It is twice differentiable everywhere, unlike the Huber loss.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        distance = residual.abs()
        # cosh r = 1 + 2 sinh²(r/2) is exact for a tiny r, but overflows for a large one.
        small = distance < 1
        near = torch.log1p(2 * torch.sinh(residual.where(small, 0) / 2).square())
        far = distance + torch.log1p(torch.exp(-2 * distance)) - log(2)
        return torch.where(small, near, far)
