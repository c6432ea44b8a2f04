"""Generalised cross-entropy."""

from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import expm1, log_softmax_tails


class GCE(ClassLoss):
    """Generalised cross-entropy: (1 - p_y^q) / q with p = softmax(z), between cross-entropy (q → 0) and MAE (q = 1).

    For noisy labels: its gradient is that of cross-entropy times p_y^q, so unlikely labels count less.
    For q = 0 use `cross_entropy`.
    """

    q: float | Tensor = hyperparameter(
        "q, from cross-entropy to MAE", "(0, 1]", "the paper's", (0.1, 0.4, 0.7, 1.0), default=0.7
    )

    @property
    def card(self) -> Card:
        """Bounded by 1/q; symmetric only as MAE."""
        return Card(
            formula=r"\frac{1 - p_y^q}{q}",
            plain="(1 - p_y^q) / q",
            source="Zhang & Sabuncu, Generalized cross entropy loss for training deep neural networks with noisy "
            "labels, 2018",
            near=Slope.FADES,
            far=Slope.FADES,
            convex=False,
            high="1 / q",
            uniform="(1 - K**-q) / q",
            symmetric="K - 1" if self.q == 1 and self.weight is None else None,
            shift_invariant=True,
            proper=False,
            note="At its minimum p_k is proportional to t_k^(1/(1 - q)), which is overconfident. The gradient at "
            "uniform logits is K^-q times cross-entropy's: a fifth with q = 0.7 and ten classes.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """(1 - p_k^q) / q → (N, C)."""
        # p^q written as exp(q log p) has a gradient even where p underflows.
        return -expm1(self.q * log_softmax_tails(outputs)[0]) / self.q
