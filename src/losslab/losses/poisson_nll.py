"""The negative log-likelihood of a Poisson distribution whose rate is predicted."""

import torch
from torch import Tensor

from losslab.losses.base import Loss, mean_over_outputs
from losslab.losses.card import Card, Slope
from losslab.targets import Kind


class PoissonNLL(Loss):
    """Poisson negative log-likelihood: exp(z) - t z, averaged over the targets; with `full`, + log t!.

    For counts t = 0, 1, 2, ... The outputs z are the logarithms of the rates, `to_predictions` gives the rates.
    A drop-in for torch.nn.PoissonNLLLoss and its defaults, which leave out log t! because it has no gradient.

    Args:
        full: add log t! = lgamma(t + 1), which makes the value a likelihood. Exact, where torch's `full` adds
            Stirling's approximation of it: 0.652 instead of 0.693 at t = 2.
    """

    wants: tuple[Kind, ...] = (Kind.VALUES,)

    def __init__(self, *, full: bool = False) -> None:
        super().__init__()
        self.full = full

    @property
    def card(self) -> Card:
        """An exponential against a straight line."""
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
            "low: use a small learning rate, clip gradients, or start at the logarithm of the mean count. Rows of one "
            "count t are best fitted at z = log t.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, D), (N, D) → (N,)."""
        scores = outputs.exp() - target * outputs
        return mean_over_outputs(scores + torch.lgamma(target + 1) if self.full else scores)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """The rates exp(z) → (N, D)."""
        return outputs.exp()
