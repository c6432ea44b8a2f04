"""Label-distribution-aware margins."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.losses.base import ClassCountLoss
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.class_weights import WeightRule
from losslab.losses.numerics import log_softmax_tails


class LDAM(ClassCountLoss):
    """Label-distribution-aware margin loss: cross-entropy of s c, the label's c less Δ_y, Δ_k = m (n_min / n_k)^¼.

    The outputs c are cosines; the rarer a class, the larger the margin m by which it has to win. An experiment builds
    its network so that they are; in a loop of one's own, `losslab.models.cosine` does it. The paper turns class
    weights on late in training (`callbacks=deferred_reweighting`).

    Args:
        max_m: m, the margin of the rarest class.
        s: what the cosines are multiplied by.
        counts: n (C,); None to learn them from the data. A class that does not occur has the margin of the rarest.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    cosine_outputs: bool = True
    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "max_m": Parameter("m, the margin of the rarest class", "[0, inf)", "the authors' code", (0.0, 0.2, 0.5)),
        "s": Parameter("s, the inverse of a temperature", "(0, inf)", "the authors' code", (1.0, 10.0, 30.0)),
    }
    max_m: float | Tensor
    s: float | Tensor

    def __init__(
        self,
        max_m: float | Tensor = 0.5,
        s: float | Tensor = 30.0,
        counts: Sequence[int] | Tensor | None = None,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(counts, weight, ignore_index)
        self.set_hyperparameter("max_m", max_m)
        self.set_hyperparameter("s", s)

    @property
    def card(self) -> Card:
        """Cross-entropy with a handicap; that outputs are cosines is the network's doing."""
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
            note="The facts are those of any outputs, and the value at uniform outputs that of equal counts. It starts "
            "higher than cross-entropy, by up to s m, and its gradient is s times as large at the same cosines.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """What each class would cost with its own margin → (N, C)."""
        counts = self.frequencies(outputs)
        margin = self.max_m * (counts.min() / counts) ** 0.25
        log_p, log_rest = log_softmax_tails(self.s * outputs)
        # The log-odds against a class are log(1 - p_k) - log p_k, and its margin adds s Δ_k to them.
        # Beyond the threshold softplus is the identity: at torch's 20 that would be wrong in the tenth place.
        return F.softplus(log_rest - log_p + self.s * margin, threshold=40)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """softmax(s c), without the margins → (N, C)."""
        return torch.softmax(self.s * outputs, dim=1)
