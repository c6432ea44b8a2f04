"""Cross-entropy, with all that torch's has: class weights, label smoothing, an ignored index, soft targets."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from losslab.errors import LabError
from losslab.losses.base import Loss, at_least
from losslab.targets import Kind


class CrossEntropy(Loss):
    """Cross-entropy: -Σ_k w_k t_k log p_k with p = softmax(z); for a class index, -w_y log p_y.

    The negative log-likelihood of a categorical model, a proper scoring rule; ∂/∂z = p - t at unit weights. Written
    out rather than delegated because label smoothing must also work as a tensor; equals F.cross_entropy.

    Args:
        weight: one weight a class (C,), each ≥ 0. The mean divides by the weights of the indices, and by N for soft
            targets, as torch's does.
        label_smoothing: ε in [0, 1]; targets become (1 - ε) t + ε/C (Szegedy et al. 2016).
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    wants: ClassVar[tuple[Kind, ...]] = (Kind.INDEX, Kind.PROBABILITIES)
    label_smoothing: float | Tensor

    def __init__(
        self,
        weight: Sequence[float] | Tensor | None = None,
        label_smoothing: float | Tensor = 0.0,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        if not isinstance(at_least("label_smoothing", label_smoothing, 0.0), Tensor) and label_smoothing > 1:
            message = f"label_smoothing must be ≤ 1, got {label_smoothing!r}"
            raise LabError(message)
        self.hold("label_smoothing", label_smoothing)
        self.ignore_index = ignore_index
        self.weight: Tensor | None
        self.register_buffer("weight", class_weights(weight), persistent=False)

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) or (N, C) → (N,)."""
        surprise = -torch.log_softmax(outputs, dim=1)
        if self.weight is not None:
            self._check_weight(outputs)
            surprise = surprise * self.weight.to(surprise.dtype)
        if target.dtype.is_floating_point:
            return self._smoothed((target * surprise).sum(1), surprise)
        counted = target != self.ignore_index
        label = target.where(counted, 0)
        hard = surprise.gather(1, label.unsqueeze(1)).squeeze(1)
        return self._smoothed(hard, surprise).where(counted, 0)

    def _smoothed(self, scores: Tensor, surprise: Tensor) -> Tensor:
        if not isinstance(self.label_smoothing, Tensor) and self.label_smoothing == 0:
            return scores  # a class that is ruled out by a logit of -inf would make 0 times infinity of it
        return (1 - self.label_smoothing) * scores + self.label_smoothing * surprise.mean(1)

    def example_weight(self, target: Tensor) -> Tensor:
        """The weight of each index, 0 where ignored; 1 for soft targets → (N,)."""
        if target.dtype.is_floating_point:
            return super().example_weight(target)
        counted = target != self.ignore_index
        if self.weight is None:
            return counted.float()
        return self.weight[target.where(counted, 0)] * counted

    def _check_weight(self, outputs: Tensor) -> None:
        if self.weight is not None and len(self.weight) != outputs.shape[1]:
            message = f"weight must hold one number a class: got {len(self.weight)} for {outputs.shape[1]} classes"
            raise LabError(message)


def class_weights(weight: Sequence[float] | Tensor | None) -> Tensor | None:
    """Class weights as a tensor (C,), checked.

    Raises:
        LabError: a weight is negative or not a number, or all are 0.
    """
    if weight is None or isinstance(weight, Tensor):
        return weight
    if not weight or not all(w >= 0 for w in weight) or not any(weight):
        message = f"weight must hold one number ≥ 0 a class, not all of them 0, got {list(weight)}"
        raise LabError(message)
    return torch.tensor([float(w) for w in weight])
