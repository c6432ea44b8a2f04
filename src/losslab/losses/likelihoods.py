"""Negative log-likelihoods of values: Gaussian, Poisson and Tweedie."""

from math import log, pi

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.losses.base import Loss, mean_over_outputs
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import argument, hyperparameter
from losslab.losses.numerics import expm1_over
from losslab.targets import Kind


class GaussianNLL(Loss):
    """Gaussian negative log-likelihood: (log σ² + (t - μ)²/σ²)/2, σ² = softplus(v) + ε, averaged over the targets.

    The network has two outputs for each target: of outputs (N, 2D), the first D columns are the means μ, and the last D
    the raw variances v. It learns how uncertain each prediction is, so noisy examples count less.

    Args:
        full: whether to add the constant log(2π)/2, like `full` of torch.nn.GaussianNLLLoss.
    """

    wants = (Kind.VALUES,)
    outputs_per_target = 2
    eps: float | Tensor = hyperparameter(
        "ε, the smallest variance, in squared units of the target",
        "(0, inf)",
        "the paper's",
        (1e-6, 1e-2),
        default=1e-6,
    )
    full: bool = argument(default=False, kw_only=True)

    @property
    def card(self) -> Card:
        return Card(
            formula=r"\tfrac{1}{2} \Bigl(\log \sigma^2 + \frac{(t - \mu)^2}{\sigma^2}\Bigr), \quad"
            r" \sigma^2 = \log(1 + e^v) + \varepsilon",
            plain="(log σ² + (t - μ)²/σ²)/2; σ² = softplus(v) + ε",
            source="Nix & Weigend, Estimating the mean and variance of the target probability distribution, 1994; "
            "softplus and ε: Lakshminarayanan et al., Simple and scalable predictive uncertainty estimation using "
            "deep ensembles, 2017",
            far=Slope.GROWS,
            convex=False,
            low="log(eps) / 2" + (" + log(2*pi) / 2" if self.full else ""),
            elicits="mean",
            note="The card describes the gradient with respect to the mean, which is r/σ² with r = μ - t. So examples "
            "with a large variance are learnt late: standardise the targets. Where the mean is right, the variance "
            "decreases: without noise the loss falls to log(ε)/2, and gradients grow to r/ε.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Compute the scores (N,) from outputs (N, 2D) and target (N, D)."""
        variance = self.variances(outputs)
        residual = self.to_predictions(outputs) - target
        # residual² / variance could overflow where residual · (residual / variance) does not.
        constant = log(2 * pi) / 2 if self.full else 0.0
        return mean_over_outputs((variance.log() + residual * (residual / variance)) / 2 + constant)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """Return the means (N, D) in outputs (N, 2D)."""
        return outputs[..., : outputs.shape[-1] // 2]

    def variances(self, outputs: Tensor) -> Tensor:
        """Compute the variances σ² (N, D) from outputs (N, 2D)."""
        return F.softplus(outputs[..., outputs.shape[-1] // 2 :]) + self.eps


class PoissonNLL(Loss):
    """Poisson negative log-likelihood: exp(z) - t z, plus log t! if `full`, averaged over the targets.

    It is for counts t = 0, 1, 2, ... The outputs z are the logarithms of the rates; `to_predictions` returns the rates.
    It equals torch.nn.PoissonNLLLoss with its defaults, which omit log t! because it has no gradient.

    Args:
        full: whether to add log t! = lgamma(t + 1), which makes the value a likelihood. Here log t! is exact; torch's
            `full` uses Stirling's approximation, which is 0.652 instead of 0.693 at t = 2.
    """

    wants = (Kind.VALUES,)
    full: bool = argument(default=False, kw_only=True)

    @property
    def card(self) -> Card:
        return Card(
            formula=r"e^z - t z" + (r" + \log t!" if self.full else ""),
            plain="exp(z) - t z" + (" + log(t!)" if self.full else ""),
            source="Nelder & Wedderburn, Generalized linear models, 1972",
            far=Slope.GROWS,
            convex=True,
            low="0" if self.full else "-oo",
            elicits="mean",
            overflows_at=88.0,
            note="The gradient exp(z) - t grows exponentially where the rate is too high, and is at most t where it is "
            "too low: use a small learning rate, clip gradients, or start at the logarithm of the mean count. For a "
            "constant count t the minimum is at z = log t.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        scores = outputs.exp() - target * outputs
        return mean_over_outputs(scores + torch.lgamma(target + 1) if self.full else scores)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """Return the rates exp(z) (N, D)."""
        return outputs.exp()


class Tweedie(Loss):
    """Tweedie loss: (e^((2-p) z) - 1)/(2-p) - t (e^((1-p) z) - 1)/(1-p), averaged over the targets.

    It is for targets t ≥ 0 whose variance is proportional to a power p of their mean: p = 1 for counts, p = 2 for
    positive amounts with a constant relative error, and p between 1 and 2 for amounts that are often exactly 0 (claims,
    rain, sales). The outputs z are the logarithms of the means; `to_predictions` returns the means.

    It is half the deviance, plus a term that does not depend on z and makes the loss continuous in p: p = 1 is
    poisson_nll - 1, and p = 2 is z + t/e^z - t, which corresponds to a gamma (or exponential) distribution.
    """

    wants = (Kind.VALUES,)
    power: float | Tensor = hyperparameter(
        "p, the power of the mean in the variance", "[1, 2]", "XGBoost", (1.0, 1.5, 2.0), default=1.5
    )

    @property
    def card(self) -> Card:
        power = float(self.power)
        return Card(
            formula=r"\frac{e^{(2-p) z} - 1}{2 - p} - t\, \frac{e^{(1-p) z} - 1}{1 - p}",
            plain="(e^((2-p) z) - 1)/(2-p) - t (e^((1-p) z) - 1)/(1-p)",
            source="Tweedie, An index which distinguishes between some important exponential families, 1984; "
            "Jørgensen, Exponential dispersion models, 1987",
            far=Slope.GROWS,
            convex=True,
            low="-oo",
            elicits="mean",
            overflows_at=88 / max(power - 1, 2 - power),
            note="The gradient grows exponentially where the mean is too high (p < 2) and, for t > 0, where it is too "
            "low (p > 1): use a small learning rate, or start at the logarithm of the mean target.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        power = torch.as_tensor(self.power, dtype=outputs.dtype, device=outputs.device)
        return mean_over_outputs(expm1_over(2 - power, outputs) - target * expm1_over(1 - power, outputs))

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """Return the means exp(z) (N, D)."""
        return outputs.exp()
