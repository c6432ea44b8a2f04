"""Knowledge distillation."""

import torch
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses.base import Loss
from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import argument, hyperparameter
from losslab.targets import Kind


class Distillation(Loss):
    """T² KL(softmax(v/T) ‖ softmax(z/T)) for a student's logits z and a teacher's logits v; the target is not used.

    T² keeps the size of the gradient when T changes. Combine it with cross-entropy in a WeightedSum, as
    conf/loss/distillation does.

    Args:
        teacher: a trained network from inputs to logits (N, C), called by `loss_inputs`; None if the outputs already
            hold both logits.
    """

    wants = (Kind.INDEX, Kind.PROBABILITIES)
    n_views = 2
    temperature: float | Tensor = hyperparameter(
        "T, the temperature of both softmaxes; a high one gives small probabilities more weight",
        "(0, inf)",
        "within the paper's 2.5 to 20",
        (1.0, 4.0),
        default=4.0,
    )

    teacher: nn.Module | None = argument(default=None)

    def __post_init__(self) -> None:
        teacher = self.teacher
        del self.teacher
        # In a tuple it is no submodule: it is neither trained, nor counted, nor saved with the run.
        self._teacher = () if teacher is None else (teacher.eval().requires_grad_(requires_grad=False),)

    card = Card(
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
        note="It does not see the labels: the teacher decides what is right. Convex in the student's logits, but "
        "not in both.",
    )

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002 -- the teacher replaces it
        """(N, 2C), any target → (N,)."""
        student, teacher = (outputs / self.temperature).chunk(2, dim=1)
        log_q = torch.log_softmax(teacher, dim=1)
        divergence = (log_q.exp() * (log_q - torch.log_softmax(student, dim=1))).sum(1)
        return self.temperature**2 * divergence

    def loss_inputs(self, outputs: Tensor, inputs: Tensor, network: nn.Module) -> Tensor:  # noqa: ARG002 -- the base's
        """The student's logits, then the teacher's (N, 2C). Raises LabError without a teacher of as many outputs."""
        if not self._teacher:
            raise LabError("distillation needs a teacher: teacher=RUN_FOLDER")
        teacher = self._teacher[0].to(inputs)
        with torch.no_grad():
            logits = teacher(inputs)
        if logits.shape != outputs.shape:
            raise LabError(
                f"the teacher has {logits.shape[1]} outputs and the student {outputs.shape[1]}: use one data set"
            )
        return torch.cat([outputs, logits.to(outputs.dtype)], dim=1)
