"""Label smoothing for any loss on class probabilities."""

from torch import Tensor

from losslab.errors import LabError
from losslab.losses.base import Loss
from losslab.losses.card import Card
from losslab.losses.hyperparameters import argument, hyperparameter
from losslab.targets import Kind


class Smoothed(Loss):
    """L(z, (1 - ε) t + ε/C): label smoothing for any loss that takes probabilities and has no class weights."""

    wants = (Kind.PROBABILITIES,)
    loss: Loss = argument()
    epsilon: float | Tensor = hyperparameter(
        "ε, the share of the target spread over all classes", "[0, 1]", "the paper's", (0.0, 0.1, 0.3), default=0.1
    )

    def __post_init__(self) -> None:
        loss = self.loss
        if Kind.PROBABILITIES not in loss.wants or loss.n_views * loss.outputs_per_target > 1:
            raise LabError(f"smoothed needs a loss on class probabilities: {type(loss).__name__} is none")
        if getattr(loss, "weight", None) is not None or getattr(loss, "weight_rule", None) is not None:
            raise LabError("smoothed takes no class weights: with smoothed targets they would move the optimum")

    @property
    def card(self) -> Card | None:
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
            note="Smoothing moves the optimum away from certainty; class weights would move it further.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        smooth = (1 - self.epsilon) * target + self.epsilon / target.shape[1]
        return self.loss.score(outputs, smooth)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """As the inner loss says → (N, C)."""
        return self.loss.to_probabilities(outputs)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """As the inner loss says → (N, C)."""
        return self.loss.to_predictions(outputs)
