"""Squared error."""

from typing import ClassVar

import torch
from torch import Tensor

from losslab.losses.base import Loss, mean_over_outputs
from losslab.targets import Kind


class EstimatesTarget(Loss):
    """A loss whose outputs estimate the target itself, be it a value or the probability of a class."""

    wants: ClassVar[tuple[Kind, ...]] = (Kind.VALUES, Kind.PROBABILITIES, Kind.BINARY)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """The outputs themselves, kept inside [ε, 1] so that a logarithm can be taken → (N, C).

        ε is float32's 1.2e-7, the floor scikit-learn's log_loss uses. Rows need not sum to 1: the metrics of
        exclusive classes normalise them.
        """
        return outputs.clamp(torch.finfo(torch.float32).eps, 1.0)


class MSE(EstimatesTarget):
    """Mean squared error: (z - t)², averaged over the outputs of an example.

    Estimates the conditional mean; on class probabilities it is the least-squares classifier. Gauss 1809; as a loss
    for classes: Hui & Belkin, "Evaluation of neural architectures trained with square loss vs cross-entropy", 2021.
    """

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, D), (N, D) → (N,)."""
        return mean_over_outputs((outputs - target).square())
