"""Logit-adjusted cross-entropy, for class imbalance."""

import torch
from torch import Tensor

from losslab.losses.base import ClassCountLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter


class LogitAdjusted(ClassCountLoss):
    """Logit-adjusted cross-entropy: -log softmax(z + τ log n)_y, n the class counts.

    The class frequencies are accounted for in the loss, so the outputs need not learn them: softmax(z) is the
    prediction for classes of equal frequency. Nothing is added when the classifier is used. At τ = 1 it is the balanced
    softmax, n_y exp(z_y) / Σ_k n_k exp(z_k); at τ = 0 it is cross-entropy.

    Args:
        counts: n (C,); None to receive them from the data. A class that does not occur counts like the rarest.
    """

    tau: float | Tensor = hyperparameter(
        "τ, the strength of the adjustment", "[0, inf)", "the paper's", (0.0, 1.0, 2.0), default=1.0
    )

    @property
    def card(self) -> Card:
        """Cross-entropy's facts, for shifted logits."""
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
            note="The value at uniform outputs and properness are for equal counts. Otherwise softmax(z) estimates the "
            "probabilities divided by n^τ, which is better for the mean accuracy of the classes (τ = 1) and worse for "
            "the likelihood of a test set as imbalanced as the training data.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """-log softmax(z + τ log n)_k → (N, C)."""
        # In float32 a number of order 1 is lost when added to outputs of 10,000, but not to their log-softmax.
        log_p = torch.log_softmax(outputs, dim=1)
        return -torch.log_softmax(log_p + self.tau * self.positive_counts(outputs).log(), dim=1)
