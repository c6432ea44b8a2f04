"""Criteria from elsewhere: torch.nn, timm, kornia, pytorch-metric-learning, a user's own module or function."""

import logging
from typing import Any

import torch
from torch import Tensor

from losslab.errors import LabError
from losslab.losses.adapter.call import find
from losslab.losses.adapter.output_kind import OutputKind, classifier, meaning
from losslab.losses.adapter.per_example import Route, broadcasts, find_form, prepared
from losslab.losses.adapter.probe import Criterion, Probe, named, undisturbed
from losslab.losses.base import Loss, Total
from losslab.targets import Kind

logger = logging.getLogger(__name__)


def adapt(criterion: Any, given: Kind, targets: int) -> Loss:
    """Make a criterion(outputs, target) of any origin a Loss. A Loss is given back as it is.

    Its target kind, per-example form and the meaning of its outputs are found out on a batch of fixed numbers, on
    copies: the criterion and the global random state stay as they are. Nothing is put before or behind it: one that
    expects log-probabilities (NLLLoss, KLDivLoss) or probabilities (BCELoss) expects them of the network.

    Args:
        criterion: a torch.nn.Module or a function of two tensors that returns one number, or one for each example.
        given: the kind of target that the data give.
        targets: C classes, K labels or D values.

    Raises:
        LabError: it cannot be called on such targets, or does not depend on all of them.
    """
    if isinstance(criterion, Loss):
        return criterion
    if isinstance(criterion, type) or not callable(criterion):
        message = f"a loss must be a function of outputs and target or a torch.nn.Module, got {criterion!r}"
        raise LabError(" ".join(message.split()))
    with undisturbed():
        try:
            loss = Adapted(criterion, find(criterion, given, targets))
        except LabError:
            raise
        except Exception as error:  # what a stranger's code raises on some batches only
            message = f"loss {named(criterion)} raises on a small batch of random outputs: {error}"
            raise LabError(" ".join(message.split())) from error
    loss.say_what_differs()
    return loss


class Adapted(Loss):
    """A criterion that `adapt` found out about. `forward` is the criterion's own value, but for `reduction="sum"`.

    A sum over the batch becomes the mean over its examples, as of every loss here. Class weights and an ignored index
    weigh the mean as they do in the criterion. A criterion that only scores a batch as a whole (of pairs, triplets,
    ranks) trains all the same: it counts as the loss of each of its examples, and `per_example` raises.
    """

    def __init__(self, criterion: Criterion, probe: Probe) -> None:
        super().__init__()
        self.name = named(criterion)
        self.call, self.targets, self.bounded = probe.call, probe.targets, probe.bounded
        self.wants = (probe.call.kind,)
        self.form = find_form(probe)
        if self.form.route is Route.WHOLE and broadcasts(probe):
            raise LabError(
                f"{self.name} broadcasts: it pairs the outputs of each example with the targets of all; make the "
                f"shapes of outputs and target one inside it, e.g. target.view_as(outputs)"
            )
        self.meaning = meaning(probe)
        self.classifier = classifier(criterion, probe.call.width, probe.targets)
        self.criterion = prepared(criterion, self.form.route)

    def outputs(self, targets: int) -> int:  # noqa: ARG002 -- found out for as many
        """How many outputs the network needs: one a target, or the embedding that the criterion classifies."""
        return self.call.width

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, width) and a target of the kind in `wants` → (N,).

        Raises:
            LabError: the criterion has no per-example form.
        """
        if self.form.route is Route.WHOLE:
            raise LabError(f"{self.name} has no per-example form: it scores a batch as a whole")
        return self.form.scores(self.criterion, self.call, outputs, target)

    def example_weight(self, target: Tensor) -> Tensor:
        """The weight of each example in the mean, as the criterion weighs it → (N,)."""
        return self.form.weights(self.criterion, self.targets, target)

    def total(self, outputs: Tensor, target: Tensor) -> Total:
        """The sums of scores and weights. A criterion of whole batches counts once for each example."""
        outputs, target = self._fitting(outputs, target)
        if len(outputs) == 0:
            # A process's share of a small batch: its parameters take part all the same, or the others wait for them.
            nothing = sum((parameter.sum() * 0 for parameter in self.parameters()), outputs.sum())
            return Total(nothing, torch.zeros_like(nothing.detach()), {})
        try:
            if self.form.route in {Route.ELEMENTS, Route.ENTRIES}:
                scores = self.form.scores(self.criterion, self.call, outputs, target)
                return Total(scores.sum(), self.example_weight(target).to(scores.dtype).sum(), {})
            value = self.call(self.criterion, outputs, target).mean()
        except RuntimeError as error:
            if not self.bounded:
                raise
            message = f"{self.name} does not take what the network gives (it did take outputs between 0 and 1): {error}"
            raise LabError(" ".join(message.split())) from error
        count = torch.full_like(value.detach(), len(outputs))
        return Total(value if self.form.summed else value * count, count, {})

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """Class scores (N, C) by the criterion's own classifier; values (N, D), e^z under a criterion of logarithms."""
        if self.classifier is None:
            of_values = Kind.VALUES in self.wants and self.meaning is OutputKind.LOGARITHMS
            return outputs.exp() if of_values else outputs
        logits: Tensor = getattr(self.criterion, self.classifier)(outputs.to(self._precision(outputs)))
        return logits

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """What `meaning` says the outputs stand for; under an own classifier the softmax of its logits → (N, C)."""
        return self.meaning.probabilities(self.to_predictions(outputs))

    def say_what_differs(self) -> None:
        """Warn, in a line each, of what a curve or a metric does not mean under this criterion."""
        if self.form.route is Route.WHOLE:
            logger.warning(
                "%s scores a batch as a whole and has no per-example form: curves are means of batch values, and "
                "they and training depend on data.batch_size, accumulation and the number of processes",
                self.name,
            )
        if self.form.summed:
            logger.warning(
                "%s sums over the batch; here a step learns from the mean over its examples: multiply optimizer.lr by "
                "data.batch_size to take the steps of the sum",
                self.name,
            )
        if self.meaning is OutputKind.OTHER and self.classifier is None:
            logger.warning(
                "under %s the outputs are no estimates of the target (but embeddings, for instance): metrics that "
                "compare the two, such as accuracy or mse, mean nothing; the loss alone can be followed",
                self.name,
            )

    def _precision(self, outputs: Tensor) -> torch.dtype:
        own = next((parameter.dtype for parameter in self.parameters()), torch.float32)
        return torch.promote_types(outputs.dtype, own) if own is torch.float64 else own
