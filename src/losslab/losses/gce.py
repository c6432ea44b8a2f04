"""Generalised cross-entropy."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.class_weights import WeightRule
from losslab.losses.numerics import expm1, log_softmax_tails


class GCE(ClassLoss):
    """Generalised cross-entropy: (1 - p_y^q) / q with p = softmax(z), between cross-entropy (q → 0) and MAE (q = 1).

    For noisy labels: it learns like cross-entropy weighted by p_y^q, so less from labels it thinks impossible.

    Args:
        q: how much of MAE's tolerance; 0 is not in the range, `cross_entropy` is that.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "q": Parameter("q, from cross-entropy to MAE", "(0, 1]", "the paper's", (0.1, 0.4, 0.7, 1.0)),
    }
    q: float | Tensor

    def __init__(
        self,
        q: float | Tensor = 0.7,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.set_hyperparameter("q", q)

    @property
    def card(self) -> Card:
        """Bounded by 1/q, and symmetric only as MAE."""
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
            note="Where it is least, p_k is in proportion to t_k^(1/(1 - q)): surer than the truth. The gradient at "
            "uniform logits is K^-q of cross-entropy's: a fifth with q = 0.7 and ten classes.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """(1 - p_k^q) / q → (N, C)."""
        # p^q as exp(q log p) has a gradient where p underflows.
        return -expm1(self.q * log_softmax_tails(outputs)[0]) / self.q
