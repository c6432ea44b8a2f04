"""The base of losses that compare outputs with the target itself."""

from abc import abstractmethod

import torch
from torch import Tensor

from losslab.losses.base import Loss
from losslab.targets import Kind


class ResidualLoss(Loss):
    """A loss of the residual r = z - t, averaged over the outputs of an example.

    The outputs estimate the target itself, be it a value or the probability of a class.
    """

    wants: tuple[Kind, ...] = (Kind.VALUES, Kind.PROBABILITIES, Kind.BINARY)

    @abstractmethod
    def penalty(self, residual: Tensor) -> Tensor:
        """The loss of each residual → the same shape."""

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, D), (N, D) → (N,)."""
        return mean_over_outputs(self.penalty(outputs - target))

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """The outputs themselves, kept inside [ε, 1] so that a logarithm can be taken → (N, C).

        ε is float32's 1.2e-7, the floor scikit-learn's log_loss uses. Rows need not sum to 1: the metrics of
        exclusive classes normalise them.
        """
        return outputs.clamp(torch.finfo(torch.float32).eps, 1.0)


def mean_over_outputs(values: Tensor) -> Tensor:
    """Element losses (N, ...) → (N,), so that the mean over examples is torch's mean over elements."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values
