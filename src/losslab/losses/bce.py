"""Binary cross-entropy on logits."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.losses.base import Loss, mean_over_outputs
from losslab.losses.cross_entropy import class_weights
from losslab.targets import Kind


class BCE(Loss):
    """Binary cross-entropy on logits: -w t log σ(z) - (1 - t) log(1 - σ(z)), averaged over the outputs.

    For a binary problem (one logit), several labels at once (K logits), and classes as one-vs-all (C logits, an
    index spelt out as 0/1 columns). Calls F.binary_cross_entropy_with_logits, which is stable for every logit.

    Args:
        pos_weight: w, the weight of a positive label; one number, or one a column.
    """

    wants: ClassVar[tuple[Kind, ...]] = (Kind.BINARY, Kind.PROBABILITIES)

    def __init__(self, pos_weight: float | Sequence[float] | Tensor | None = None) -> None:
        super().__init__()
        if isinstance(pos_weight, int | float):
            pos_weight = [pos_weight]
        self.pos_weight: Tensor | None
        self.register_buffer("pos_weight", class_weights(pos_weight), persistent=False)

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, K), (N, K) → (N,)."""
        weight = None if self.pos_weight is None else self.pos_weight.to(outputs.dtype)
        losses = F.binary_cross_entropy_with_logits(outputs, target, pos_weight=weight, reduction="none")
        return mean_over_outputs(losses)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """σ(z), one independent probability a column → (N, K)."""
        return torch.sigmoid(outputs)
