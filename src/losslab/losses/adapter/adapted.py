"""Makes a `Loss` of a criterion of any origin: torch.nn, timm, kornia, pytorch-metric-learning, a user's function."""

import logging
from typing import Any

import torch
from torch import Tensor

from losslab.errors import LabError, message_of
from losslab.losses.adapter.output_kind import OutputKind, find_classifier, infer
from losslab.losses.adapter.per_example import Route, broadcasts, find_form, unreduced
from losslab.losses.adapter.probe import Criterion, Probe, find_call, name_of, trial_conditions
from losslab.losses.base import Loss, Total
from losslab.targets import Kind

logger = logging.getLogger(__name__)


def adapt(criterion: Any, kind: Kind, targets: int) -> Loss:
    """Make a Loss of a criterion(outputs, target) of any origin. A Loss is returned unchanged.

    The target kind, the per-example form and the kind of outputs are found by calling copies of the criterion on a
    small fixed batch; the criterion and the global random state do not change. Nothing is inserted before or after the
    criterion: one that takes log-probabilities (NLLLoss, KLDivLoss) or probabilities (BCELoss) gets the network's
    outputs as they are.

    Args:
        criterion: a torch.nn.Module or a function of two tensors that returns one number, or one per example.
        kind: the kind of target that the data provide.
        targets: C classes, K labels or D values.

    Raises:
        LabError: the criterion cannot be called on such targets, or does not depend on all of them.
    """
    if isinstance(criterion, Loss):
        return criterion
    if isinstance(criterion, type) or not callable(criterion):
        text = " ".join(repr(criterion).split())
        raise LabError(f"a loss must be a function of outputs and target or a torch.nn.Module, got {text}")
    with trial_conditions():
        try:
            loss = Adapted(criterion, find_call(criterion, kind, targets))
        except LabError:
            raise
        except Exception as error:  # foreign code that fails on some batches only
            raise LabError(
                f"loss {name_of(criterion)} raises on a small batch of random outputs: {message_of(error)}"
            ) from error
    loss.log_limitations()
    return loss


class Adapted(Loss):
    """The result of `adapt`. `forward` returns the criterion's own value, except under `reduction="sum"`.

    A sum over the batch becomes the mean over its examples, as for all losses of this package. Class weights and an
    ignored index weight the mean as in the criterion. A criterion that scores a batch as a whole (pairs, triplets,
    ranks) can be trained with too: its value counts as the loss of each example, and `per_example` raises.
    """

    def __init__(self, criterion: Criterion, probe: Probe) -> None:
        super().__init__()
        self.name = name_of(criterion)
        self.call, self.targets, self.bounded = probe.call, probe.targets, probe.bounded
        self.wants = (probe.call.kind,)
        self.form = find_form(probe)
        if self.form.route is Route.WHOLE and broadcasts(probe):
            raise LabError(
                f"{self.name} broadcasts: it pairs the outputs of each example with the targets of all; give outputs "
                f"and target one shape inside it, e.g. target.view_as(outputs)"
            )
        self.output_kind = infer(probe)
        self.classifier = find_classifier(criterion, probe.call.width, probe.targets)
        self.criterion = unreduced(criterion, self.form.route)

    def outputs(self, targets: int) -> int:  # noqa: ARG002 -- the loss was adapted for one number of targets
        """The number of outputs that the network needs: one per target, or the width of an embedding."""
        return self.call.width

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, width) and a target of the kind in `wants` → (N,). Raises LabError without a per-example form."""
        if self.form.route is Route.WHOLE:
            raise LabError(f"{self.name} has no per-example form: it scores a batch as a whole")
        return self.form.scores(self.criterion, self.call, outputs, target)

    def example_weight(self, target: Tensor) -> Tensor:
        """The weight of each example in the mean, as the criterion weights it → (N,)."""
        return self.form.weights(self.criterion, self.targets, target)

    def total(self, outputs: Tensor, target: Tensor) -> Total:
        """The sums of scores and weights. The value of a whole batch counts once per example."""
        outputs, target = self._prepare(outputs, target)
        if len(outputs) == 0:
            # A rank without examples: its parameters still take part, or the other ranks wait for their gradients.
            zero = sum((parameter.sum() * 0 for parameter in self.parameters()), outputs.sum())
            return Total(zero, torch.zeros_like(zero.detach()), {})
        try:
            if self.form.route in {Route.ELEMENTS, Route.ENTRIES}:
                scores = self.form.scores(self.criterion, self.call, outputs, target)
                return Total(scores.sum(), self.example_weight(target).to(scores.dtype).sum(), {})
            value = self.call(self.criterion, outputs, target).mean()
        except RuntimeError as error:
            if not self.bounded:
                raise
            raise LabError(
                f"{self.name} does not accept the outputs of the network, only outputs between 0 and 1: "
                f"{message_of(error)}"
            ) from error
        count = torch.full_like(value.detach(), len(outputs))
        return Total(value if self.form.summed else value * count, count, {})

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """Class scores (N, C) of the criterion's own classifier; values (N, D), e^z for logarithms of values."""
        if self.classifier is None:
            return outputs.exp() if self.output_kind is OutputKind.LOG_VALUES else outputs
        own = next((parameter.dtype for parameter in self.parameters()), torch.float32)
        precision = torch.promote_types(outputs.dtype, own) if own is torch.float64 else own
        logits: Tensor = getattr(self.criterion, self.classifier)(outputs.to(precision))
        return logits

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """The probabilities that `output_kind` implies; with its own classifier, the softmax of its logits."""
        return self.output_kind.probabilities(self.to_predictions(outputs))

    def log_limitations(self) -> None:
        """Log a warning for each curve or metric that has an unusual meaning under this criterion, or none."""
        if self.form.route is Route.WHOLE:
            logger.warning(
                "%s scores a batch as a whole and has no per-example form: curves are means over batches, and "
                "training and curves depend on data.batch_size, gradient accumulation and the number of processes",
                self.name,
            )
        if self.form.summed:
            logger.warning(
                "%s sums over the batch, but losslab trains on the mean over examples: multiply optimizer.lr by "
                "data.batch_size to take the same steps",
                self.name,
            )
        if self.output_kind is OutputKind.UNKNOWN and self.classifier is None:
            logger.warning(
                "under %s the outputs are no estimates of the target (they may be embeddings): metrics that compare "
                "the two, such as accuracy or mse, mean nothing; only the loss can be followed",
                self.name,
            )
