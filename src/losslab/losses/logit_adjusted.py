"""Cross-entropy of outputs that the class frequencies were added to."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from losslab.losses.base import ClassCountLoss
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.class_weights import WeightRule


class LogitAdjusted(ClassCountLoss):
    """Logit-adjusted cross-entropy: -log softmax(z + τ log n)_y, n the class counts.

    The frequencies explain what they can, so the outputs need not: softmax(z) is for data in which all classes are as
    frequent. In training only; when the classifier is used, nothing is added. At τ = 1 it is the balanced softmax,
    n_y exp(z_y) / Σ_k n_k exp(z_k).

    Args:
        tau: τ; 0 is cross-entropy.
        counts: n (C,); None to learn them from the data. A class that does not occur counts like the rarest.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "tau": Parameter("τ, how much of the frequencies is made up for", "[0, inf)", "the paper's", (0.0, 1.0, 2.0)),
    }
    tau: float | Tensor

    def __init__(
        self,
        tau: float | Tensor = 1.0,
        counts: Sequence[int] | Tensor | None = None,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(counts, weight, ignore_index)
        self.set_hyperparameter("tau", tau)

    @property
    def card(self) -> Card:
        """Cross-entropy's, shifted."""
        return Card(
            formula=r"-\log \frac{n_y^\tau e^{z_y}}{\sum_k n_k^\tau e^{z_k}}",
            plain="-log softmax(z + τ log n)_y",
            source="Menon et al., Long-tail learning via logit adjustment, 2021; at τ = 1 Ren et al., Balanced "
            "meta-softmax for long-tailed visual recognition, 2020",
            near=Slope.FADES,
            far=Slope.STAYS,
            convex=True,
            uniform="log(K)",
            shift_invariant=True,
            proper=self.weight is None,
            note="Value at uniform outputs and properness are those of equal counts. With others softmax(z) estimates "
            "the probabilities divided by n^τ, which is better for the mean accuracy of the classes (τ = 1) and worse "
            "for the likelihood of a test set as unequal as the training data.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """-log softmax(z + τ log n)_k → (N, C)."""
        # To outputs of 10,000 a number of order 1 cannot be added exactly in float32, to their log-softmax it can.
        log_p = torch.log_softmax(outputs, dim=1)
        return -torch.log_softmax(log_p + self.tau * self.frequencies(outputs).log(), dim=1)
