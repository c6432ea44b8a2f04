"""Negative log-likelihood of a Gaussian with predicted mean and variance."""

from math import log, pi

import torch.nn.functional as F
from torch import Tensor

from losslab.losses.base import Loss, mean_over_outputs
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import argument, hyperparameter
from losslab.targets import Kind


class GaussianNLL(Loss):
    """Gaussian negative log-likelihood: (log σ² + (t - μ)²/σ²)/2, σ² = softplus(v) + ε, averaged over the targets.

    The network has two outputs for each target: of outputs (N, 2D) the first D are the means μ, the others the raw
    variances v. It learns how uncertain each prediction is, and noisy examples count less.

    Args:
        full: add the constant log(2π)/2, like `full` of torch.nn.GaussianNLLLoss.
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
        """A parabola in the mean, with a learnt width."""
        return Card(
            formula=r"\tfrac{1}{2} \Bigl(\log \sigma^2 + \frac{(t - \mu)^2}{\sigma^2}\Bigr), \quad"
            r" \sigma^2 = \log(1 + e^v) + \varepsilon",
            plain="(log σ² + (t - μ)²/σ²)/2; σ² = softplus(v) + ε",
            source="Nix & Weigend, Estimating the mean and variance of the target probability distribution, 1994; "
            "softplus and ε: Lakshminarayanan et al., Simple and scalable predictive uncertainty estimation using "
            "deep ensembles, 2017",
            near=Slope.FADES,
            far=Slope.GROWS,
            convex=False,
            low="log(eps) / 2" + (" + log(2*pi) / 2" if self.full else ""),
            elicits="mean",
            note="The slopes are those of the mean. At a correct mean the variance keeps shrinking: without noise the "
            "loss falls to log(ε)/2, and gradients grow to r/ε. The gradient of the mean is r/σ², so examples with a "
            "large variance are learnt late: standardise the targets.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, 2D), (N, D) → (N,)."""
        variance = self.variances(outputs)
        residual = self.to_predictions(outputs) - target
        # The square of a large residual overflows where its ratio to a large variance does not.
        constant = log(2 * pi) / 2 if self.full else 0.0
        return mean_over_outputs((variance.log() + residual * (residual / variance)) / 2 + constant)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """The means: (N, 2D) → (N, D)."""
        return outputs[..., : outputs.shape[-1] // 2]

    def variances(self, outputs: Tensor) -> Tensor:
        """The variances σ²: (N, 2D) → (N, D)."""
        return F.softplus(outputs[..., outputs.shape[-1] // 2 :]) + self.eps
