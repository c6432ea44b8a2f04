"""Any loss, with smoothed targets."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from losslab.errors import LabError
from losslab.losses.base import Loss
from losslab.losses.card import Card, Parameter
from losslab.targets import Kind


class Smoothed(Loss):
    """L(z, (1 - ε) t + ε/C): label smoothing for any loss that takes probabilities.

    Args:
        loss: any loss that takes PROBABILITIES.
        epsilon: ε, how much of the target all classes share.

    Raises:
        LabError: the loss does not take probabilities, or weights classes, for which smoothed targets are not defined.
    """

    wants: tuple[Kind, ...] = (Kind.PROBABILITIES,)
    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "epsilon": Parameter("ε, how much of the target all classes share", "[0, 1]", "the paper's", (0.0, 0.1, 0.3)),
    }
    epsilon: float | Tensor

    def __init__(self, loss: Loss, epsilon: float | Tensor = 0.1) -> None:
        super().__init__()
        if Kind.PROBABILITIES not in loss.wants or loss.n_views * loss.outputs_per_target > 1:
            raise LabError(f"smoothed needs a loss on class probabilities: {type(loss).__name__} is none")
        if getattr(loss, "weight", None) is not None or getattr(loss, "rule", None) is not None:
            raise LabError("smoothed takes no class weights: with smoothed targets they would move the optimum")
        self.loss = loss
        self.set_hyperparameter("epsilon", epsilon)

    @property
    def card(self) -> Card | None:
        """What smoothing leaves as it is of the inner loss's card; None if that has none."""
        inner = self.loss.card
        if inner is None:
            return None
        return Card(
            formula=rf"L(z, (1 - \varepsilon) t + \varepsilon / K), \quad L(z, t) = {inner.formula}",
            plain=f"L(z, (1 - ε) t + ε/K) with L(z, t) = {inner.plain}",
            source=f"Szegedy et al., Rethinking the Inception architecture for computer vision, 2016; {inner.source}",
            near=None,
            far=None,
            convex=True if inner.convex else None,
            low=None,
            high=None,
            shift_invariant=inner.shift_invariant,
            note="Smoothing moves the optimum away from certainty; weights of classes would move it further.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) → (N,)."""
        smooth = (1 - self.epsilon) * target + self.epsilon / target.shape[1]
        return self.loss.score(outputs, smooth)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """As the inner loss says → (N, C)."""
        return self.loss.to_probabilities(outputs)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """As the inner loss says → (N, C)."""
        return self.loss.to_predictions(outputs)
