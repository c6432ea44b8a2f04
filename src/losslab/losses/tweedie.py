"""Tweedie deviance, for counts to positive amounts."""

import torch
from torch import Tensor

from losslab.losses.base import Loss, mean_over_outputs
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import expm1_over
from losslab.targets import Kind


class Tweedie(Loss):
    """Tweedie loss: (e^((2-p) z) - 1)/(2-p) - t (e^((1-p) z) - 1)/(1-p), averaged over the targets.

    For targets t ≥ 0 with a variance proportional to a power p of their mean: p = 1 for counts, p = 2 for positive
    amounts with a constant relative error, and p between for amounts that are often exactly 0 (claims, rain, sales).
    The outputs z are the logarithms of the means; `to_predictions` gives the means.

    It is half the deviance plus a term that does not depend on z, chosen so that both ends are limits: p = 1 is
    poisson_nll - 1, and p = 2 is z + t/e^z - t, the likelihood of a gamma (or exponential) distribution.
    """

    wants = (Kind.VALUES,)
    power: float | Tensor = hyperparameter(
        "p, the power of the mean in the variance", "[1, 2]", "XGBoost", (1.0, 1.5, 2.0), default=1.5
    )

    @property
    def card(self) -> Card:
        """An exponential on each side."""
        power = float(self.power)
        return Card(
            formula=r"\frac{e^{(2-p) z} - 1}{2 - p} - t\, \frac{e^{(1-p) z} - 1}{1 - p}",
            plain="(e^((2-p) z) - 1)/(2-p) - t (e^((1-p) z) - 1)/(1-p)",
            source="Tweedie, An index which distinguishes between some important exponential families, 1984; "
            "Jørgensen, Exponential dispersion models, 1987",
            near=Slope.FADES,
            far=Slope.GROWS,
            convex=True,
            low="-oo",
            elicits="mean",
            overflows_at=88 / max(power - 1, 2 - power),
            note="The gradient grows exponentially where the mean is far too high (p < 2) or, for t > 0, far too low "
            "(p > 1): use a small learning rate, or start at the logarithm of the mean target.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, D), (N, D) → (N,)."""
        power = torch.as_tensor(self.power, dtype=outputs.dtype, device=outputs.device)
        return mean_over_outputs(expm1_over(2 - power, outputs) - target * expm1_over(1 - power, outputs))

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """The means exp(z) → (N, D)."""
        return outputs.exp()
