"""Sigmoid cross-entropy for one label among many classes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.losses.base import Loss, mean_over_outputs
from losslab.losses.card import Card, Slope
from losslab.targets import Kind


class PriorSigmoid(Loss):
    """Sigmoid cross-entropy: Σ_k -t_k log σ(z_k - log K) - (1 - t_k) log(1 - σ(z_k - log K)), summed over K outputs.

    For classes as one-vs-all, where one of K labels is 1: subtracting log K from every output gives an initial
    probability of 1/(K + 1). With one output it is binary cross-entropy.
    """

    wants = (Kind.BINARY, Kind.PROBABILITIES)

    @property
    def card(self) -> Card:
        """The negative log-likelihood of independent labels."""
        return Card(
            formula=r"-\sum_k \bigl(t_k \log \sigma(z_k - \log K) + (1 - t_k) \log(1 - \sigma(z_k - \log K))\bigr)",
            plain="-t log σ(z - log K) - (1 - t) log(1 - σ(z - log K)), summed over the outputs",
            source="Kornblith et al., Why do better loss functions lead to less transferable features?, 2021",
            near=Slope.FADES,
            far=Slope.STAYS,
            convex=True,
            uniform="log(1 + K) + (K - 1) * log((K + 1) / K)",
            proper=True,
            note="A sum over the outputs: its gradient is K times that of bce. Made for one label among many: where "
            "several labels are 1, the initial probability is too low.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, K), (N, K) → (N,)."""
        losses = F.binary_cross_entropy_with_logits(_shifted(outputs), target, reduction="none")
        return mean_over_outputs(losses) * outputs.shape[-1]

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """σ(z - log K), an independent probability per column → (N, K)."""
        return torch.sigmoid(_shifted(outputs))


def _shifted(outputs: Tensor) -> Tensor:
    return outputs - math.log(outputs.shape[-1])
