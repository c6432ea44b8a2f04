"""Robust losses of a scaled residual: Charbonnier, Cauchy, Geman-McClure, Welsch, and Tukey's biweight.

The first four are scaled as in Barron, A general and adaptive robust loss function, 2019, where they are the cases
α = 1, 0, -2 and -∞. Each is (r/c)²/2 near the target, so that they differ only in how they treat outliers.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from losslab.losses.base import ResidualLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import expm1, hypotenuse_less_1, log1p_square

SCALE = (
    "c, the residual from which on an example counts as an outlier, in units of the target",
    "(0, inf)",
    "Barron's reference code",
    (1.0, 2.0, 4.0),
)


class RobustLoss(ResidualLoss):
    """A loss of x = r/c, r = z - t, averaged over the outputs of an example."""

    c: float | Tensor = hyperparameter(*SCALE, default=1.0)

    @abstractmethod
    def curve(self, x: Tensor) -> Tensor:
        """The loss of each scaled residual → the same shape."""

    def penalty(self, residual: Tensor) -> Tensor:
        return self.curve(residual / self.c)


class Charbonnier(RobustLoss):
    """Charbonnier loss: √((r/c)² + 1) - 1, also called pseudo-Huber or L1-L2.

    A smooth Huber loss. The form √(r² + ε²) used in image restoration is ε times this one with c = ε, plus ε.
    """

    card = Card(
        formula=r"\sqrt{(r/c)^2 + 1} - 1, \quad r = z - t",
        plain="√((r/c)² + 1) - 1; r = z - t",
        source="Charbonnier et al., Two deterministic half-quadratic regularization algorithms for computed "
        "imaging, 1994, scaled as in Barron 2019",
        far=Slope.STAYS,
        convex=True,
        note="The gradient far out is 1/c: a large c slows learning.",
    )

    def curve(self, x: Tensor) -> Tensor:
        return hypotenuse_less_1(x)


class Cauchy(RobustLoss):
    """Cauchy (or Lorentzian) loss: log((r/c)²/2 + 1).

    The negative log-likelihood of a Cauchy distribution with scale √2 c, whose tails are so heavy that it has no mean.
    """

    card = Card(
        formula=r"\log\bigl(\tfrac{1}{2}(r/c)^2 + 1\bigr), \quad r = z - t",
        plain="log((r/c)²/2 + 1); r = z - t",
        source="Black & Anandan, The robust estimation of multiple motions, 1996, scaled as in Barron 2019",
        far=Slope.FADES,
        convex=False,
        note="Above √2 c the gradient falls with the residual, like 2/r: start near the target, with a large c.",
    )

    def curve(self, x: Tensor) -> Tensor:
        return log1p_square(x / 2**0.5)


class GemanMcClure(RobustLoss):
    """Geman-McClure loss: 2 (r/c)² / ((r/c)² + 4).

    Bounded: an outlier costs at most 2, however far it is.
    """

    card = Card(
        formula=r"\frac{2 (r/c)^2}{(r/c)^2 + 4}, \quad r = z - t",
        plain="2 (r/c)² / ((r/c)² + 4); r = z - t",
        source="Geman & McClure, Bayesian image analysis: an application to single photon emission tomography, "
        "1985, scaled as in Barron 2019",
        far=Slope.FADES,
        convex=False,
        high="2",
        note="Above 2/√3 c the gradient falls with the residual, like 16 c²/r³: start near the target, with a large c.",
    )

    def curve(self, x: Tensor) -> Tensor:
        # = 2 (1 - exp(-log(1 + x²/4))), a form whose gradient is exact for large x
        return -2 * expm1(-log1p_square(x / 2))


class Welsch(RobustLoss):
    """Welsch (or Leclerc) loss: 1 - exp(-(r/c)²/2).

    Bounded: an outlier costs 1 and has no gradient, so the minimum is a mode of the target's distribution.
    """

    card = Card(
        formula=r"1 - \exp\bigl(-\tfrac{1}{2}(r/c)^2\bigr), \quad r = z - t",
        plain="1 - exp(-(r/c)²/2); r = z - t",
        source="Dennis & Welsch, Techniques for nonlinear least squares and robust regression, 1978, scaled as in "
        "Barron 2019",
        far=Slope.FADES,
        convex=False,
        high="1",
        note="Above c the gradient falls with the residual, and above 14 c it underflows in float32: start near "
        "the target, with a large c.",
    )

    def curve(self, x: Tensor) -> Tensor:
        return -expm1(-x.square() / 2)


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

    card = Card(
        formula=r"\begin{cases} \frac{c^2}{6} \bigl(1 - (1 - (r/c)^2)^3\bigr) & \lvert r\rvert \le c \\"
        r" \frac{c^2}{6} & \text{else} \end{cases} \quad r = z - t",
        plain="c²/6 (1 - (1 - (r/c)²)³) if |r| ≤ c, else c²/6; r = z - t",
        source="Beaton & Tukey, The fitting of power series, meaning polynomials, illustrated on "
        "band-spectroscopic data, 1974",
        far=Slope.ZERO,
        convex=False,
        high="c**2 / 6",
        note="If all residuals exceed c, nothing is learnt: start from the solution of another loss or with a "
        "large c, and scale c to the noise.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        share = (residual / self.c).clamp(-1, 1).square()
        # With s = (r/c)², 1 - (1 - s)³ has an exact slope near s = 1, and s (3 - 3 s + s²) an exact value near 0.
        bowl = torch.where(share < 0.5, share * (3 + share * (share - 3)), 1 - (1 - share) ** 3)
        return self.c * (self.c * bowl) / 6
