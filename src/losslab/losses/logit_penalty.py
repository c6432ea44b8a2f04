"""Cross-entropy that is kept from large logits."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.class_weights import WeightRule


class LogitPenalty(ClassLoss):
    """Cross-entropy plus a penalty on the size of the logits: -log p_y + β |z|².

    Args:
        beta: β. The authors' code writes β/2: its 6e-4 is 3e-4 here.
        weight: one weight a class (C,), of cross-entropy and penalty, or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "beta": Parameter(
            "β, how much large logits cost", "[0, inf)", "the authors' code, tuned on ImageNet", (0.0, 3e-4, 6e-4)
        ),
    }
    beta: float | Tensor

    def __init__(
        self,
        beta: float | Tensor = 3e-4,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.set_hyperparameter("beta", beta)

    @property
    def card(self) -> Card:
        """Cross-entropy in a shallow bowl."""
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
            note="The least value is a little above 0 and has no closed form: 0.02 with ten classes at β = 3e-4. There "
            "the logits stop growing, so the probabilities are less sure than the truth.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """-log p_k + β |z|² → (N, C)."""
        return -torch.log_softmax(outputs, dim=1) + self.beta * outputs.square().sum(1, keepdim=True)
