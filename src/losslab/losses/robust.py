"""Robust losses of a residual: they are quadratic near the target, and grow more slowly far from it.

Charbonnier, Cauchy, Geman-McClure and Welsch are scaled as in Barron, A general and adaptive robust loss function,
2019, which has them as the cases α = 1, 0, -2 and -∞. Near the target each of them is about (r/c)²/2.
"""

from math import inf, log
from typing import Any

import torch
from torch import Tensor

from losslab.losses.base import ResidualLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import expm1, expm1_over, log1p_square, sqrt1p_square_minus_1


class RobustLoss(ResidualLoss):
    """A loss of the residual r = z - t at a scale c, averaged over the outputs of an example."""

    c: float | Tensor = hyperparameter(
        "c, the residual above which an example counts as an outlier, in units of the target",
        "(0, inf)",
        "Barron's reference code",
        (1.0, 2.0, 4.0),
        default=1.0,
    )


class Charbonnier(RobustLoss):
    """Charbonnier loss: √((r/c)² + 1) - 1, also called pseudo-Huber or L1-L2.

    It is a smooth Huber loss. The form √(r² + ε²) used in image restoration is ε times this loss at c = ε, plus ε.
    """

    card = Card(
        formula=r"\sqrt{(r/c)^2 + 1} - 1, \quad r = z - t",
        plain="√((r/c)² + 1) - 1; r = z - t",
        source="Charbonnier et al., Two deterministic half-quadratic regularization algorithms for computed "
        "imaging, 1994, scaled as in Barron 2019",
        far=Slope.STAYS,
        convex=True,
        note="The gradient far from the target is 1/c: a large c slows training.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        return sqrt1p_square_minus_1(residual / self.c)


class Cauchy(RobustLoss):
    """Cauchy (or Lorentzian) loss: log((r/c)²/2 + 1).

    It is the negative log-likelihood of a Cauchy distribution with scale √2 c. The tails of this distribution are so
    heavy that it has no mean.
    """

    card = Card(
        formula=r"\log\bigl(\tfrac{1}{2}(r/c)^2 + 1\bigr), \quad r = z - t",
        plain="log((r/c)²/2 + 1); r = z - t",
        source="Black & Anandan, The robust estimation of multiple motions, 1996, scaled as in Barron 2019",
        far=Slope.FADES,
        convex=False,
        note="Above √2 c the gradient decreases with the residual, as 2/r: start near the target, with a large c.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        return log1p_square(residual / self.c / 2**0.5)


class GemanMcClure(RobustLoss):
    """Geman-McClure loss: 2 (r/c)² / ((r/c)² + 4).

    It is bounded: the loss is below 2 for every outlier.
    """

    card = Card(
        formula=r"\frac{2 (r/c)^2}{(r/c)^2 + 4}, \quad r = z - t",
        plain="2 (r/c)² / ((r/c)² + 4); r = z - t",
        source="Geman & McClure, Bayesian image analysis: an application to single photon emission tomography, "
        "1985, scaled as in Barron 2019",
        far=Slope.FADES,
        convex=False,
        high="2",
        note="Above 2c/√3 the gradient decreases with the residual, as 16 c²/r³: start near the target, at a large c.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        # The loss is 2 (1 - exp(-log(1 + x²/4))) with x = r/c. In this form the gradient is exact for large x.
        return -2 * expm1(-log1p_square(residual / self.c / 2))


class Welsch(RobustLoss):
    """Welsch (or Leclerc) loss: 1 - exp(-(r/c)²/2).

    It is bounded: the loss of a far outlier is 1 and its gradient 0. For small c the best constant estimate is a mode.
    """

    card = Card(
        formula=r"1 - \exp\bigl(-\tfrac{1}{2}(r/c)^2\bigr), \quad r = z - t",
        plain="1 - exp(-(r/c)²/2); r = z - t",
        source="Dennis & Welsch, Techniques for nonlinear least squares and robust regression, 1978, scaled as in "
        "Barron 2019",
        far=Slope.FADES,
        convex=False,
        high="1",
        note="Above c the gradient decreases with the residual, and above 14 c it underflows in float32: start near "
        "the target, with a large c.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        return -expm1(-(residual / self.c).square() / 2)


class Tukey(ResidualLoss):
    """Tukey's biweight (or bisquare): c²/6 (1 - (1 - (r/c)²)³) if |r| ≤ c, else c²/6; r = z - t.

    It is averaged over the outputs of an example. It is about r²/2 near the target; beyond c there is no gradient.
    """

    c: float | Tensor = hyperparameter(
        "c, the residual above which examples are ignored, in units of the target",
        "(0, inf)",
        "95 % efficiency for Gaussian noise of standard deviation 1",
        (2.0, 4.685, 10.0),
        default=4.685,
    )

    card = Card(
        formula=r"\begin{cases} \frac{c^2}{6} \bigl(1 - (1 - (r/c)^2)^3\bigr) & \lvert r\rvert \le c \\"
        r" \frac{c^2}{6} & \text{else} \end{cases} \quad r = z - t",
        plain="c²/6 (1 - (1 - (r/c)²)³) if |r| ≤ c, else c²/6; r = z - t",
        source="Beaton & Tukey, The fitting of power series, meaning polynomials, illustrated on "
        "band-spectroscopic data, 1974",
        far=Slope.ZERO,
        convex=False,
        high="c**2 / 6",
        note="If all residuals exceed c, there is no gradient: start from the solution of another loss or with a large "
        "c, and scale c to the noise.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        s = (residual / self.c).clamp(-1, 1).square()
        # 1 - (1 - s)³ has an exact slope near s = 1; the equal s (3 - 3 s + s²) has an exact value near s = 0.
        biweight = torch.where(s < 0.5, s * (3 + s * (s - 3)), 1 - (1 - s) ** 3)
        return self.c * (self.c * biweight) / 6


class Huber(ResidualLoss):
    """Huber loss: r²/2 if |r| ≤ δ, else δ (|r| - δ/2); r = z - t. It is averaged over the outputs of an example.

    It is quadratic near the target and linear far from it.
    """

    delta: float | Tensor = hyperparameter(
        "δ, the residual above which the loss is linear, in units of the target",
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
        note="The gradient far from the target is δ: a small δ limits outliers, and also slows training.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        # With q = r clamped to ±δ, both cases are q (r - q/2). This form needs no branch, has a gradient with respect
        # to a tensor δ, and has the right second derivative at 0, unlike a form with |r|.
        delta: Any = self.delta  # Any, because the annotations of clamp do not allow the type float | Tensor
        clamped = residual.clamp(-delta, delta)
        return clamped * (residual - clamped / 2)


class SmoothL1(ResidualLoss):
    """Smooth L1 loss: r²/(2β) if |r| ≤ β, else |r| - β/2; r = z - t. It is averaged over the outputs of an example.

    It is 1/β times the Huber loss with δ = β. At β = 0 it is L1.
    """

    beta: float | Tensor = hyperparameter(
        "β, the residual above which the loss is linear, in units of the target",
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
        limit: Any = self.beta  # Any, as for Huber
        clamped = residual.clamp(-limit, limit)
        beta = torch.as_tensor(self.beta, dtype=residual.dtype, device=residual.device)
        # |clamped| ≤ β, so the quotient is at most 1. At β = 0 the divisor is 1, and the quotient is not used.
        quotient = clamped / torch.where(beta > 0, beta, 1.0)
        return torch.where(beta > 0, quotient * (residual - clamped / 2), residual.abs())


class LogCosh(ResidualLoss):
    """Log-cosh loss: log cosh r, r = z - t, averaged over the outputs of an example.

    It is smooth, about r²/2 near the target and about |r| - log 2 far from it. It has no scale to set: standardise the
    target.
    """

    card = Card(
        formula=r"\log\cosh r, \quad r = z - t",
        plain="log(cosh(r)); r = z - t",
        source="Green, Bayesian reconstructions from emission tomography data using a modified EM algorithm, 1990",
        far=Slope.STAYS,
        convex=True,
        note="The gradient is tanh r. The loss is twice differentiable everywhere, unlike the Huber loss.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        distance = residual.abs()
        # cosh r = 1 + 2 sinh²(r/2) is exact for a tiny r, but overflows for a large r.
        small = distance < 1
        near = torch.log1p(2 * torch.sinh(residual.where(small, 0) / 2).square())
        far = distance + torch.log1p(torch.exp(-2 * distance)) - log(2)
        return torch.where(small, near, far)


class Barron(RobustLoss):
    """General robust loss: |α - 2|/α · (((r/c)²/|α - 2| + 1)^(α/2) - 1), r = z - t, averaged over the outputs.

    The smaller α, the more robust is the loss. The special cases and limits are exact: α = 2 is mse/(2c²), 1 is
    charbonnier, 0 is cauchy, -2 is geman_mcclure, -∞ is welsch.

    A tensor α may be learnt, and may exceed 2, where the loss grows faster than the square. At α = 2 the derivative
    with respect to α is infinite (it grows as -log|α - 2|); the one at the next float is used instead.
    """

    alpha: float | Tensor = hyperparameter(
        "α, the influence of outliers: a smaller α is more robust",
        "[-inf, 2]",
        "Barron's reference code",
        (-inf, -2.0, 0.0, 1.0, 1.5, 2.0),
        default=1.0,
    )

    @property
    def card(self) -> Card:
        alpha = float(self.alpha)
        bound = "1" if alpha == -inf else "(alpha - 2) / alpha"
        far = Slope.STAYS if alpha == 1 else Slope.FADES  # for α ≤ 1
        return Card(
            formula=r"\frac{\lvert\alpha - 2\rvert}{\alpha} \Bigl(\bigl(\tfrac{(r/c)^2}{\lvert\alpha - 2\rvert} + 1"
            r"\bigr)^{\alpha/2} - 1\Bigr), \quad r = z - t",
            plain="|α - 2|/α · (((r/c)²/|α - 2| + 1)^(α/2) - 1); r = z - t",
            source="Barron, A general and adaptive robust loss function, 2019",
            far=Slope.GROWS if alpha > 1 else far,
            convex=alpha >= 1,
            high=bound if alpha < 0 else "oo",
            elicits="mean" if alpha == 2 else None,
            note="Below α = 1 it is not convex: start near the target, with a large c, or decrease α during training. "
            "If α is learnt too, it only decreases, unless the normaliser of the density is added.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        x = residual / self.c
        alpha = torch.as_tensor(self.alpha, dtype=x.dtype, device=x.device)
        # where() differentiates both forms, so each gets arguments at which its gradient is finite.
        is_near_2 = ((alpha - 2).abs() < 0.5) & (x.abs() < torch.finfo(x.dtype).max ** 0.4)
        return torch.where(
            is_near_2,
            _near_2(x.where(is_near_2, 0), torch.where(is_near_2, alpha, 2.0)),
            _elsewhere(x, torch.where(is_near_2, 0.0, alpha)),
        )


def _near_2(x: Tensor, alpha: Tensor) -> Tensor:
    """Return the loss of x = r/c for |α - 2| < 0.5, as a square with a correction: (x² e^v + b (e^v - 1)) / α.

    b = |α - 2| and v = (α/2 - 1) log(x²/b + 1), which approaches 0 with b.
    """
    excess = alpha - 2
    b = _distance_to_2(alpha)
    v = excess / 2 * log1p_square(x / b.sqrt())
    return (x * (x * v.exp()) + b * expm1(v)) / alpha


def _elsewhere(x: Tensor, alpha: Tensor) -> Tensor:
    """Return the loss of x = r/c as (e^(k m) - 1)/k. Near α = 2 its derivative with respect to α is inexact.

    b = |α - 2|, k = α/b and m = b log(x²/b + 1)/2. At α = 0, where k = 0, it is m; as α → ±∞, k → ±1 and m → x²/2.
    """
    # An infinite α is replaced by ±1/ε^1.5, where the loss equals its limit up to rounding.
    limit = torch.finfo(x.dtype).eps ** -1.5
    alpha = alpha.clamp(-limit, limit)
    b = _distance_to_2(alpha)
    return expm1_over(alpha / b, b / 2 * log1p_square(x / b.sqrt()))


def _distance_to_2(alpha: Tensor) -> Tensor:
    """Return |α - 2|, but at least the machine epsilon, because the loss divides by it."""
    return (alpha - 2).abs().clamp(min=torch.finfo(alpha.dtype).eps)
