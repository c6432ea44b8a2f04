"""Rules for class weights, and losses, for imbalanced classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.errors import LabError
from losslab.losses.base import ClassCountLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import log_softmax_tails


def balanced(counts: Tensor) -> Tensor:
    """Return class weights (C,) of N / (C n_k), with which every class has the same total weight; N is Σ_k n_k.

    This is class_weight="balanced" of scikit-learn. A class without examples gets the weight 0.
    """
    present = counts.clamp(min=1)
    return torch.where(counts > 0, counts.sum() / (len(counts) * present), 0.0).float()


def effective_number(counts: Tensor, beta: float = 0.9999) -> Tensor:
    """Return class weights (C,) proportional to (1 - β) / (1 - β^n_k), scaled to sum to C.

    They are 1 at β = 0, and approach inverse frequencies as β → 1. A class without examples gets 0. Raise LabError if β
    is not in [0, 1), or all counts are 0. Cui et al., "Class-balanced loss based on effective number of samples", 2019.
    """
    if not 0 <= beta < 1:
        raise LabError(f"effective_number: beta must be a number in [0, 1), got {beta!r}")
    if not counts.any():
        raise LabError("effective_number: all class counts are 0")
    # expm1 computes 1 - β^n exactly even where β^n rounds to 1. At β = 0 it is 1 for every n.
    numbers = counts.double()
    effective = -torch.expm1(numbers * torch.log(torch.tensor(beta, dtype=torch.float64)))
    weights = torch.where(counts > 0, (1 - beta) / torch.where(counts > 0, effective, 1.0), 0.0)
    return (weights * len(counts) / weights.sum()).float()


class LogitAdjusted(ClassCountLoss):
    """Logit-adjusted cross-entropy: -log softmax(z + τ log n)_y, where n are the class counts.

    The loss adds the class frequencies, so that the outputs need not contain them: softmax(z) is the prediction for
    classes of equal frequency. At τ = 1 it is cross-entropy of the balanced softmax n_y exp(z_y) / Σ_k n_k exp(z_k); at
    τ = 0 it is cross-entropy.

    Args:
        counts: the class counts n (C,); None to use those of the data. A class without examples counts as the rarest.
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
            note="The value at uniform logits and properness hold for equal counts. For other counts softmax(z) "
            "estimates the probabilities divided by n^τ. At τ = 1 this improves the mean accuracy of the classes, but "
            "it reduces the likelihood of a test set with the imbalance of the training data.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        # 10,000 + 1 loses digits in float32, so the adjustment is added to the log-softmax of the outputs.
        log_p = torch.log_softmax(outputs, dim=1)
        return -torch.log_softmax(log_p + self.tau * self.positive_counts(outputs).log(), dim=1)


class LDAM(ClassCountLoss):
    """Label-distribution-aware margin loss: cross-entropy of s c with c_y reduced by Δ_y, Δ_k = m (n_min / n_k)^¼.

    The outputs c are cosines. The margin is larger for a rarer class. An experiment replaces the network's last layer
    by one with cosine outputs; in your own loop, use `losslab.models.cosine`. The paper adds class weights late in
    training (`callbacks=deferred_reweighting`).

    Args:
        counts: the class counts n (C,); None to use those of the data. A class without examples counts as the rarest.
    """

    cosine_outputs = True
    max_m: float | Tensor = hyperparameter(
        "m, the margin of the rarest class", "[0, inf)", "the authors' code", (0.0, 0.2, 0.5), default=0.5
    )
    s: float | Tensor = hyperparameter(
        "s, the scale of the cosines, which is an inverse temperature",
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
            note="The facts are for any outputs, not only cosines; the value at uniform logits is for equal counts. "
            "The initial loss exceeds cross-entropy by up to s m, and its gradient is s times as large.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        counts = self.positive_counts(outputs)
        margin = self.max_m * (counts.min() / counts) ** 0.25
        log_p, log_one_minus_p = log_softmax_tails(self.s * outputs)
        # The loss is log(1 + odds). The log-odds against class k are log(1 - p_k) - log p_k, plus s Δ_k for the margin.
        # Above the threshold softplus is the identity: with torch's default of 20 the tenth digit would be wrong.
        return F.softplus(log_one_minus_p - log_p + self.s * margin, threshold=40)

    def to_logits(self, outputs: Tensor) -> Tensor:
        """Return s c, without the margins (N, C)."""
        return self.s * outputs

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Return softmax(s c), without the margins (N, C)."""
        return torch.softmax(self.to_logits(outputs), dim=1)
