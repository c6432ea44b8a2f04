"""Negative log-likelihood of a Poisson distribution with a predicted rate."""

import torch
from torch import Tensor

from losslab.losses.base import Loss, mean_over_outputs
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import argument
from losslab.targets import Kind


class PoissonNLL(Loss):
    """Poisson negative log-likelihood: exp(z) - t z, averaged over the targets; with `full`, + log t!.

    For counts t = 0, 1, 2, ... The outputs z are the logarithms of the rates; `to_predictions` gives the rates.
    Equals torch.nn.PoissonNLLLoss with its defaults, which omit log t! because it has no gradient.

    Args:
        full: add log t! = lgamma(t + 1), which makes the value a likelihood. It is exact; torch's `full` uses
            Stirling's approximation, 0.652 instead of 0.693 at t = 2.
    """

    wants = (Kind.VALUES,)

    full: bool = argument(default=False, kw_only=True)

    @property
    def card(self) -> Card:
        """An exponential minus a straight line."""
        return Card(
            formula=r"e^z - t z" + (r" + \log t!" if self.full else ""),
            plain="exp(z) - t z" + (" + log(t!)" if self.full else ""),
            source="Nelder & Wedderburn, Generalized linear models, 1972",
            near=Slope.FADES,
            far=Slope.GROWS,
            convex=True,
            low="0" if self.full else "-oo",
            elicits="mean",
            overflows_at=88.0,
            note="The gradient exp(z) - t explodes where the rate is far too high and is at most t where it is too "
            "low: use a small learning rate, clip gradients, or start at the logarithm of the mean count. For a "
            "constant count t the minimum is at z = log t.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, D), (N, D) → (N,)."""
        scores = outputs.exp() - target * outputs
        return mean_over_outputs(scores + torch.lgamma(target + 1) if self.full else scores)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """The rates exp(z) → (N, D)."""
        return outputs.exp()
