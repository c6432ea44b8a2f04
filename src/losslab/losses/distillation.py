"""What a pupil learns from a teacher."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses.base import Loss
from losslab.losses.card import Card, Parameter, Slope
from losslab.targets import Kind


class Distillation(Loss):
    """T² KL(softmax(v/T) ‖ softmax(z/T)) for a pupil's logits z and a teacher's v; the target is not looked at.

    T² keeps the gradient's size when T changes. Mix it with cross-entropy by a WeightedSum, as conf/loss/distillation
    does.

    Args:
        temperature: T, above 1 to make the teacher's smaller probabilities count.
        teacher: a trained network from inputs to logits (N, C), which `loss_inputs` calls; None where both logits are given.
    """

    wants: tuple[Kind, ...] = (Kind.INDEX, Kind.PROBABILITIES)
    n_views: int = 2
    hyperparameters: ClassVar[Mapping[str, Parameter]] = {
        "temperature": Parameter(
            "T, how far both are softened", "(0, inf)", "within the paper's 2.5 to 20", (1.0, 4.0)
        ),
    }
    temperature: float | Tensor

    def __init__(self, temperature: float | Tensor = 4.0, teacher: nn.Module | None = None) -> None:
        super().__init__()
        self.set_hyperparameter("temperature", temperature)
        # In a tuple, so that it is no part of the run: neither trained, nor counted, nor saved.
        self._teacher = () if teacher is None else (teacher.eval().requires_grad_(requires_grad=False),)

    @property
    def card(self) -> Card:
        """Of both sets of logits together."""
        return Card(
            formula=r"T^2 \sum_k q_k \log \frac{q_k}{p_k}, \quad "
            r"q = \mathrm{softmax}(v / T), \; p = \mathrm{softmax}(z / T)",
            plain="T² Σ_k q_k log(q_k / p_k) with q = softmax(v/T) of the teacher and p = softmax(z/T)",
            source="Hinton, Vinyals & Dean, Distilling the knowledge in a neural network, 2015",
            near=Slope.STAYS,
            far=Slope.STAYS,
            convex=False,
            uniform="0",
            shift_invariant=True,
            proper=False,
            note="It knows no labels: right and wrong is what the teacher says. Convex in the pupil's logits, not in "
            "both.",
        )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002 -- the teacher stands in for it
        """(N, 2C), anything → (N,)."""
        pupil, teacher = (outputs / self.temperature).chunk(2, dim=1)
        said = torch.log_softmax(teacher, dim=1)
        divergence = (said.exp() * (said - torch.log_softmax(pupil, dim=1))).sum(1)
        return self.temperature**2 * divergence

    def loss_inputs(self, outputs: Tensor, inputs: Tensor, network: nn.Module) -> Tensor:  # noqa: ARG002 -- the base's
        """The pupil's logits and the teacher's (N, 2C).

        Raises:
            LabError: there is no teacher, or it knows another number of classes.
        """
        if not self._teacher:
            raise LabError("distillation needs a teacher: teacher=RUN_FOLDER")
        teacher = self._teacher[0].to(inputs)
        with torch.no_grad():
            said = teacher(inputs)
        if said.shape != outputs.shape:
            raise LabError(
                f"the teacher gives {said.shape[1]} outputs and the pupil {outputs.shape[1]}: same data for both"
            )
        return torch.cat([outputs, said.to(outputs.dtype)], dim=1)
