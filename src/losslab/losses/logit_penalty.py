"""Cross-entropy with a penalty on large logits."""

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import hyperparameter


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
        """Cross-entropy plus a shallow parabola."""
        plain = float(self.beta) == 0
        return Card(
            formula=r"-\log p_y + \beta \lVert z\rVert^2",
            plain="-log p_y + β |z|²",
            source="Kornblith et al., Why do better loss functions lead to less transferable features?, 2021",
            near=Slope.FADES if plain else Slope.GROWS,
            far=Slope.STAYS if plain else Slope.GROWS,
            convex=True,
            uniform="log(K)",
            shift_invariant=plain,
            proper=plain and self.weight is None,
            note="The minimum is a little above 0 and has no closed form: 0.02 with ten classes at β = 3e-4. The "
            "logits stop growing there, so the probabilities are underconfident.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """-log p_k + β |z|² → (N, C)."""
        return -torch.log_softmax(outputs, dim=1) + self.beta * outputs.square().sum(1, keepdim=True)
