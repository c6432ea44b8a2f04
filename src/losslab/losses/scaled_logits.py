"""Cross-entropy with limited logits: normalised logits, cosines, and a penalty on the size of the logits."""

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter

_KORNBLITH = "Kornblith et al., Why do better loss functions lead to less transferable features?, 2021"


class _SoftmaxWithTemperature(ClassLoss):
    """Cross-entropy with a temperature τ: -log softmax(s/τ)_y, where `scaled` computes s (N, C) from the outputs."""

    temperature: float | Tensor

    def scaled(self, outputs: Tensor) -> Tensor:
        """Compute s (N, C), before the division by τ."""
        return outputs

    def classwise(self, outputs: Tensor) -> Tensor:
        return -torch.log_softmax(self.to_logits(outputs), dim=1)

    def to_logits(self, outputs: Tensor) -> Tensor:
        """Return s/τ, (N, C)."""
        return self.scaled(outputs) / self.temperature

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Return softmax(s/τ), (N, C), as the loss uses it."""
        return torch.softmax(self.to_logits(outputs), dim=1)


class LogitNorm(_SoftmaxWithTemperature):
    """Logit normalisation: cross-entropy of the logits z / (τ |z|), which do not depend on the size of the outputs."""

    temperature: float | Tensor = hyperparameter(
        "τ, the temperature", "(0, inf)", "the paper's on CIFAR-10", (0.04, 0.1, 1.0), default=0.04
    )

    @property
    def card(self) -> Card:
        return Card(
            formula=r"-\log \mathrm{softmax}\Bigl(\frac{z}{\tau \lVert z\rVert}\Bigr)_y",
            plain="-log softmax(z / (τ |z|))_y",
            source="Wei et al., Mitigating neural network overconfidence with logit normalization, 2022",
            far=Slope.FADES,
            convex=False,
            low="log(1 + (K - 1) * exp(-sqrt(K / (K - 1)) / temperature))",
            # The larger of two extremes: all wrong classes are equally likely, or one of them is the most likely.
            high="1.01 * Max(log(1 + (K - 1) * exp(sqrt(K / (K - 1)) / temperature)),"
            " log(1 + exp(sqrt(2) / temperature) + (K - 2) * exp(1 / (sqrt(2) * temperature))))",
            uniform="log(K)",
            # In theory it is never proper, because τ limits the confidence: to 99 % at τ = 0.15 with ten classes.
            proper=self.weight is None and float(self.temperature) <= 0.15,
            note="The gradient is inversely proportional to |z|: larger outputs change more slowly. The maximum has no "
            "closed form; the bound is at most 1 % above it. τ limits the confidence: with ten classes p_y < 0.24 at "
            "τ = 1.",
        )

    def scaled(self, outputs: Tensor) -> Tensor:
        """Divide the outputs (N, C) by |z| + 1e-7, as in the authors' code."""
        # Both are divided by the largest |z_k| first, so that no square in the norm overflows or underflows.
        largest = outputs.detach().abs().amax(1, keepdim=True).clamp(min=1e-30)
        scaled = outputs / largest
        norm: Tensor = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
        return scaled / (norm + 1e-7 / largest)


class CosineSoftmax(_SoftmaxWithTemperature):
    """Cosine softmax: cross-entropy of c/τ, where the outputs c are cosines between features and class vectors.

    An experiment replaces the network's last layer by one with cosine outputs; in your own loop, use
    `losslab.models.cosine`.
    """

    cosine_outputs = True
    temperature: float | Tensor = hyperparameter(
        "τ, the temperature", "(0, inf)", "the authors' code, tuned on ImageNet", (0.05, 0.1, 1.0), default=0.05
    )

    @property
    def card(self) -> Card:
        return Card(
            formula=r"-\log \mathrm{softmax}(c / \tau)_y \quad c_k = \cos\angle(h, w_k)",
            plain="-log softmax(c/τ)_y, where c are cosines",
            source=_KORNBLITH,
            far=Slope.STAYS,
            convex=True,
            uniform="log(K)",
            shift_invariant=True,
            proper=self.weight is None,
            note="The facts hold for any outputs, not only cosines. For cosines the loss is between log(1 + (K - 1) "
            "exp(-2/τ)) and log(1 + (K - 1) exp(2/τ)): a large τ limits the confidence.",
        )


class LogitPenalty(ClassLoss):
    """Cross-entropy plus a penalty on the size of the logits: -log p_y + β |z|²."""

    beta: float | Tensor = hyperparameter(
        "β, the strength of the penalty",
        "[0, inf)",
        "the authors' code (6e-4/2), tuned on ImageNet",
        (0.0, 3e-4, 6e-4),
        default=3e-4,
    )

    @property
    def card(self) -> Card:
        is_cross_entropy = float(self.beta) == 0
        return Card(
            formula=r"-\log p_y + \beta \lVert z\rVert^2",
            plain="-log p_y + β |z|²",
            source=_KORNBLITH,
            near=Slope.FADES if is_cross_entropy else Slope.GROWS,
            far=Slope.STAYS if is_cross_entropy else Slope.GROWS,
            convex=True,
            uniform="log(K)",
            shift_invariant=is_cross_entropy,
            proper=is_cross_entropy and self.weight is None,
            note="The minimum of the loss is a little above 0 and has no closed form: 0.02 for ten classes and β = "
            "3e-4. The logits are finite at the minimum, so the probabilities are underconfident.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        return -torch.log_softmax(outputs, dim=1) + self.beta * outputs.square().sum(1, keepdim=True)
