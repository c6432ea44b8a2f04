"""The negative log-likelihood of a Gaussian whose mean and variance are both predicted."""

from collections.abc import Mapping
from math import log, pi
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from losslab.losses.base import Loss, mean_over_outputs
from losslab.losses.card import Card, Parameter, Slope
from losslab.targets import Kind


class GaussianNLL(Loss):
    """Gaussian negative log-likelihood: (log σ² + (t - μ)²/σ²)/2, σ² = softplus(v) + ε, averaged over the targets.

    The network has two outputs for each target: of outputs (N, 2D) the first D are the means μ, the others the raw
    variances v. So it learns how uncertain each prediction is, and noisy examples count less.

    Args:
        eps: ε, the least variance, in squared units of the target.
        full: add the constant log(2π)/2, as torch.nn.GaussianNLLLoss does with its `full`.
    """

    wants: tuple[Kind, ...] = (Kind.VALUES,)
    outputs_per_target: int = 2
    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "eps": Parameter("ε, the least variance", "(0, inf)", "the paper's", (1e-6, 1e-2)),
    }
    eps: float | Tensor

    def __init__(self, eps: float | Tensor = 1e-6, *, full: bool = False) -> None:
        super().__init__()
        self.set_hyperparameter("eps", eps)
        self.constant = log(2 * pi) / 2 if full else 0.0

    @property
    def card(self) -> Card:
        """A parabola in the mean whose width is learnt."""
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
            low="log(eps) / 2" + (" + log(2*pi) / 2" if self.constant else ""),
            elicits="mean",
            note="The slopes are those of the mean. At a right mean the variance goes on shrinking: without noise the "
            "loss falls to log(ε)/2, and gradients grow to r/ε. The gradient of the mean is r/σ², so that examples of "
            "a large variance are learnt late: standardise the targets.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, 2D), (N, D) → (N,)."""
        variance = self.variances(outputs)
        residual = self.to_predictions(outputs) - target
        # The square of a large residual overflows although its share of a large variance does not.
        return mean_over_outputs((variance.log() + residual * (residual / variance)) / 2 + self.constant)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """The means: (N, 2D) → (N, D)."""
        return outputs[..., : outputs.shape[-1] // 2]

    def variances(self, outputs: Tensor) -> Tensor:
        """The variances σ²: (N, 2D) → (N, D)."""
        return F.softplus(outputs[..., outputs.shape[-1] // 2 :]) + self.eps
