"""Cross-entropy with limited logits: normalised logits, cosines, and a penalty on the size of the logits."""

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter

_KORNBLITH = "Kornblith et al., Why do better loss functions lead to less transferable features?, 2021"


class _Tempered(ClassLoss):
    """Cross-entropy with a temperature: -log softmax(s/τ)_y, where `scores` computes s from the outputs."""

    temperature: float | Tensor

    def scores(self, outputs: Tensor) -> Tensor:
        """The scores s, which are divided by τ → (N, C)."""
        return outputs

    def classwise(self, outputs: Tensor) -> Tensor:
        return -torch.log_softmax(self.scores(outputs) / self.temperature, dim=1)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """The softmax(s/τ) that the loss uses → (N, C)."""
        return torch.softmax(self.scores(outputs) / self.temperature, dim=1)


class LogitNorm(_Tempered):
    """Logit normalisation: cross-entropy of z / (τ |z|), which does not decrease if the outputs only get larger."""

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
            # The larger of two extremes: all other classes are equally likely, or one other class is most likely.
            high="1.01 * Max(log(1 + (K - 1) * exp(sqrt(K / (K - 1)) / temperature)),"
            " log(1 + exp(sqrt(2) / temperature) + (K - 2) * exp(1 / (sqrt(2) * temperature))))",
            uniform="log(K)",
            # Strictly it is never proper, because τ limits the confidence: to 99 % at τ = 0.15 with ten classes.
            proper=self.weight is None and float(self.temperature) <= 0.15,
            note="The gradient is inversely proportional to |z|: larger outputs change more slowly. The maximum has no "
            "closed form; the bound is at most 1 % above it. τ limits the confidence: with ten classes p_y < 0.24 at "
            "τ = 1.",
        )

    def scores(self, outputs: Tensor) -> Tensor:
        """The outputs divided by |z| + 1e-7, as in the authors' code → (N, C)."""
        # The outputs are divided by the largest first, so that no square overflows or underflows.
        largest = outputs.detach().abs().amax(1, keepdim=True).clamp(min=1e-30)
        scaled = outputs / largest
        size: Tensor = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
        return scaled / (size + 1e-7 / largest)


class CosineSoftmax(_Tempered):
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
            note="The facts are for any outputs. For cosines the loss is between log(1 + (K - 1) exp(-2/τ)) and "
            "log(1 + (K - 1) exp(2/τ)): a large τ limits the confidence.",
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
        plain = float(self.beta) == 0
        return Card(
            formula=r"-\log p_y + \beta \lVert z\rVert^2",
            plain="-log p_y + β |z|²",
            source=_KORNBLITH,
            near=Slope.FADES if plain else Slope.GROWS,
            far=Slope.STAYS if plain else Slope.GROWS,
            convex=True,
            uniform="log(K)",
            shift_invariant=plain,
            proper=plain and self.weight is None,
            note="The minimum is a little above 0 and has no closed form: 0.02 with ten classes at β = 3e-4. Logits do "
            "not grow further there, so the probabilities are underconfident.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        return -torch.log_softmax(outputs, dim=1) + self.beta * outputs.square().sum(1, keepdim=True)
