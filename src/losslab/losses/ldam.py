"""Label-distribution-aware margin loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.losses.base import ClassCountLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import log_softmax_tails


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
        """Cross-entropy with a margin. The facts do not assume that outputs are cosines."""
        return Card(
            formula=r"-\log \frac{e^{s (c_y - \Delta_y)}}{e^{s (c_y - \Delta_y)} + \sum_{k \ne y} e^{s c_k}}"
            r" \quad \Delta_k = m \Bigl(\frac{n_{\min}}{n_k}\Bigr)^{1/4}",
            plain="log(1 + Σ_{k≠y} exp(s (c_k - c_y + Δ_y))), Δ_k = m (n_min / n_k)^(1/4)",
            source="Cao et al., Learning imbalanced datasets with label-distribution-aware margin loss, 2019",
            near=Slope.FADES,
            far=Slope.STAYS,
            convex=True,
            uniform="log(1 + (K - 1) * exp(s * max_m))",
            shift_invariant=True,
            proper=float(self.max_m) == 0 and self.weight is None,
            note="The facts hold for any outputs; the value at uniform outputs is for equal counts. It starts higher "
            "than cross-entropy, by up to s m, and its gradient is s times as large at the same cosines.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """The cost of each class with its margin → (N, C)."""
        counts = self.positive_counts(outputs)
        margin = self.max_m * (counts.min() / counts) ** 0.25
        log_p, log_rest = log_softmax_tails(self.s * outputs)
        # The log-odds against a class are log(1 - p_k) - log p_k, and its margin adds s Δ_k to them.
        # Beyond the threshold softplus is the identity: at torch's default of 20 the tenth digit would be wrong.
        return F.softplus(log_rest - log_p + self.s * margin, threshold=40)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """softmax(s c), without the margins → (N, C)."""
        return torch.softmax(self.s * outputs, dim=1)
