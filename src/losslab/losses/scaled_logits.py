"""Cross-entropy of outputs at a temperature, or of one length."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.class_weights import WeightRule

_KORNBLITH = "Kornblith et al., Why do better loss functions lead to less transferable features?, 2021"
_CODE = "the authors' code, tuned on ImageNet"


class _Tempered(ClassLoss):
    """Cross-entropy at a temperature: -log softmax(s/τ)_y, where s are made of the outputs by `scores`."""

    temperature: float | Tensor

    def __init__(
        self,
        temperature: float | Tensor,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.set_hyperparameter("temperature", temperature)

    def scores(self, outputs: Tensor) -> Tensor:
        """What is divided by τ → (N, C)."""
        return outputs

    def classwise(self, outputs: Tensor) -> Tensor:
        """-log softmax(s/τ)_k → (N, C)."""
        return -torch.log_softmax(self.scores(outputs) / self.temperature, dim=1)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """softmax(s/τ), as in the loss → (N, C)."""
        return torch.softmax(self.scores(outputs) / self.temperature, dim=1)


class LogitNorm(_Tempered):
    """Logit normalisation: cross-entropy of z / (τ |z|), so that outputs cannot win by growing.

    Args:
        temperature: τ.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "temperature": Parameter("τ, the temperature", "(0, inf)", "the paper's on CIFAR-10", (0.04, 0.1, 1.0)),
    }

    def __init__(
        self,
        temperature: float | Tensor = 0.04,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(temperature, weight, ignore_index)

    @property
    def card(self) -> Card:
        """Only the direction of the outputs counts."""
        return Card(
            formula=r"-\log \mathrm{softmax}\Bigl(\frac{z}{\tau \lVert z\rVert}\Bigr)_y",
            plain="-log softmax(z / (τ |z|))_y",
            source="Wei et al., Mitigating neural network overconfidence with logit normalization, 2022",
            near=Slope.FADES,
            far=Slope.FADES,
            convex=False,
            low="log(1 + (K - 1) * exp(-sqrt(K / (K - 1)) / temperature))",
            high=_LOGIT_NORM_HIGH,
            uniform="log(K)",
            # Strictly none is: τ limits how sure it can be. At 0.15 the limit is 99 % with ten classes.
            proper=self.weight is None and float(self.temperature) <= 0.15,
            note="The gradient is inversely proportional to |z|: the larger the outputs, the slower they turn. The "
            "greatest value has no closed form; the bound is at most 1 % above it. How sure it can be is limited by "
            "τ: with ten classes p_y < 0.24 at τ = 1.",
        )

    def scores(self, outputs: Tensor) -> Tensor:
        """The outputs divided by |z| + 1e-7, as in the authors' code → (N, C)."""
        # In units of the largest output no square overflows or underflows.
        largest = outputs.detach().abs().amax(1, keepdim=True).clamp(min=1e-30)
        scaled = outputs / largest
        size: Tensor = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
        return scaled / (size + 1e-7 / largest)


class CosineSoftmax(_Tempered):
    """Cosine softmax: cross-entropy of c/τ, where the outputs c are cosines between features and class weights.

    An experiment builds its network so that they are; in a loop of one's own, `losslab.models.cosine` does it.

    Args:
        temperature: τ.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    cosine_outputs: bool = True
    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "temperature": Parameter("τ, the temperature", "(0, inf)", _CODE, (0.05, 0.1, 1.0)),
    }

    def __init__(
        self,
        temperature: float | Tensor = 0.05,
        weight: Sequence[float] | Tensor | WeightRule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(temperature, weight, ignore_index)

    @property
    def card(self) -> Card:
        """Cross-entropy's; that outputs are cosines is the network's doing."""
        return Card(
            formula=r"-\log \mathrm{softmax}(c / \tau)_y \quad c_k = \cos\angle(h, w_k)",
            plain="-log softmax(c/τ)_y, c the cosines",
            source=_KORNBLITH,
            near=Slope.FADES,
            far=Slope.STAYS,
            convex=True,
            uniform="log(K)",
            shift_invariant=True,
            proper=self.weight is None,
            note="The facts are those of any outputs. Between cosines the loss lies within log(1 + (K - 1) exp(±2/τ)): "
            "a large τ never lets it be sure.",
        )


# The greater of two ways to be wrong: all other classes share the sphere, or one has it.
_LOGIT_NORM_HIGH = (
    "1.01 * Max(log(1 + (K - 1) * exp(sqrt(K / (K - 1)) / temperature)),"
    " log(1 + exp(sqrt(2) / temperature) + (K - 2) * exp(1 / (sqrt(2) * temperature))))"
)
