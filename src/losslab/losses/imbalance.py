"""Cross-entropy for imbalanced classes: adjusted logits, and margins that depend on the class counts."""

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.losses.base import ClassCountLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import log_softmax_tails


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
        return Card(
            formula=r"-\log \frac{n_y^\tau e^{z_y}}{\sum_k n_k^\tau e^{z_k}}",
            plain="-log softmax(z + τ log n)_y",
            source="Menon et al., Long-tail learning via logit adjustment, 2021; at τ = 1 Ren et al., Balanced "
            "meta-softmax for long-tailed visual recognition, 2020",
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
        # In float32 a number of order 1 is lost when added to outputs of 10,000, but not to their log-softmax.
        log_p = torch.log_softmax(outputs, dim=1)
        return -torch.log_softmax(log_p + self.tau * self.positive_counts(outputs).log(), dim=1)


class LDAM(ClassCountLoss):
    """Label-distribution-aware margin loss: cross-entropy of s c with c_y reduced by Δ_y, Δ_k = m (n_min / n_k)^¼.

    The outputs c are cosines; the rarer a class, the larger the margin by which it must win. An experiment replaces the
    network's last layer accordingly; in your own loop `losslab.models.cosine` does so. The paper applies class weights
    late in training (`callbacks=deferred_reweighting`).

    Args:
        counts: n (C,); None to receive them from the data. A class that does not occur has the margin of the rarest.
    """

    cosine_outputs = True
    max_m: float | Tensor = hyperparameter(
        "m, the margin of the rarest class", "[0, inf)", "the authors' code", (0.0, 0.2, 0.5), default=0.5
    )
    s: float | Tensor = hyperparameter(
        "s, the scale of the cosines (an inverse temperature)",
        "(0, inf)",
        "the authors' code",
        (1.0, 10.0, 30.0),
        default=30.0,
    )

    @property
    def card(self) -> Card:
        return Card(
            formula=r"-\log \frac{e^{s (c_y - \Delta_y)}}{e^{s (c_y - \Delta_y)} + \sum_{k \ne y} e^{s c_k}}"
            r" \quad \Delta_k = m \Bigl(\frac{n_{\min}}{n_k}\Bigr)^{1/4}",
            plain="log(1 + Σ_{k≠y} exp(s (c_k - c_y + Δ_y))), Δ_k = m (n_min / n_k)^(1/4)",
            source="Cao et al., Learning imbalanced datasets with label-distribution-aware margin loss, 2019",
            far=Slope.STAYS,
            convex=True,
            uniform="log(1 + (K - 1) * exp(s * max_m))",
            shift_invariant=True,
            proper=float(self.max_m) == 0 and self.weight is None,
            note="The facts hold for any outputs; the value at uniform outputs is for equal counts. It starts higher "
            "than cross-entropy, by up to s m, and its gradient is s times as large at the same cosines.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        counts = self.positive_counts(outputs)
        margin = self.max_m * (counts.min() / counts) ** 0.25
        log_p, log_rest = log_softmax_tails(self.s * outputs)
        # The log-odds against a class are log(1 - p_k) - log p_k, and its margin adds s Δ_k to them.
        # Beyond the threshold softplus is the identity: at torch's default of 20 the tenth digit would be wrong.
        return F.softplus(log_rest - log_p + self.s * margin, threshold=40)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """softmax(s c), without the margins → (N, C)."""
        return torch.softmax(self.s * outputs, dim=1)
