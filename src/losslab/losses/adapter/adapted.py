"""Makes a criterion of torch.nn, timm, kornia, pytorch-metric-learning or a user into a `Loss`."""

import logging
import warnings
from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import Tensor

from losslab.errors import LabError, message_of
from losslab.losses.adapter.form import Route, find_form, unreduced
from losslab.losses.adapter.output_kind import OutputKind, find_classifier, infer
from losslab.losses.adapter.probe import Criterion, Probe, find_probe, name_of
from losslab.losses.adapter.state import State
from losslab.losses.base import Loss, Total
from losslab.targets import Kind

logger = logging.getLogger(__name__)

Warn = Literal["all", "metrics", "nothing"]
"""Which warnings about an adapted criterion are logged."""


def adapt(criterion: Any, kind: Kind, targets: int, *, warn: Warn = "all") -> Loss:
    """Make a criterion of any origin into a Loss. A Loss is returned unchanged.

    Copies of the criterion are called on small fixed batches to find out which kind of target it takes, how to get one
    loss per example, and what it takes the outputs for (logits, probabilities, ...). The criterion and the global
    random state do not change. The criterion gets the network's outputs as they are, even if it expects
    log-probabilities (NLLLoss, KLDivLoss) or probabilities (BCELoss).

    Args:
        criterion: a torch.nn.Module or a function of outputs and target that returns one number, or one per example.
        kind: the kind of target that the data provide; the criterion may take another kind.
        targets: number of classes C, labels K or values D.
        warn: which warnings are logged: "all" if the loss is to train a network, "metrics" if it is to evaluate one.

    Raises:
        LabError: the criterion cannot be called on such targets, or does not depend on all of them.
    """
    if isinstance(criterion, Loss):
        return criterion
    if isinstance(criterion, type) or not callable(criterion):
        text = " ".join(repr(criterion).split())
        raise LabError(f"a loss must be a function of outputs and target, or a torch.nn.Module: got {text}")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), ExitStack() as stack:
        stack.callback(State(criterion).restore)  # copies share closures and global variables with the criterion
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=r"(?s).*(target size|broadcast)")
        torch.manual_seed(0)
        try:
            loss = Adapted(criterion, find_probe(criterion, kind, targets))
        except LabError:
            raise
        except Exception as error:  # the criterion may raise anything, even after its first calls worked
            raise LabError(
                f"loss {name_of(criterion)} raises an error on a small batch of random outputs: {message_of(error)}"
            ) from error
    _log_limitations(loss, warn)
    return loss


def _log_limitations(loss: "Adapted", warn: Warn) -> None:
    """Log a warning for everything that differs from a loss of this package: curves, gradient scale, metrics."""
    if not loss.scores_examples and not loss.form.random and warn == "all":
        logger.warning(
            "%s scores a batch as a whole, not each example: losses are means over batches, weighted by their sizes, "
            "and depend on data.batch_size, data.eval_batch_size, gradient accumulation and the number of processes",
            loss.name,
        )
    elif not loss.scores_examples and warn == "all":
        logger.warning("%s draws random numbers: it has no loss of single examples", loss.name)
    elif loss.form.route is Route.SINGLES and warn == "metrics":
        logger.info("%s is called once for each example, which is slow for many examples", loss.name)
    if loss.form.summed and warn == "all":
        logger.warning(
            "%s sums over the batch, but losslab trains on the mean over examples: multiply optimizer.lr by "
            "data.batch_size to take the same steps",
            loss.name,
        )
    if loss.output_kind is OutputKind.UNKNOWN and loss.classifier is None and warn != "nothing":
        logger.warning(
            "under %s the outputs are not estimates of the target (they may be embeddings): only the loss has a "
            "meaning, not the metrics that compare outputs and target, such as accuracy or mse",
            loss.name,
        )


class Adapted(Loss):
    """The loss that `adapt` returns. `forward` returns the value of the criterion, with one exception.

    If the criterion returns a sum over the batch, `forward` returns the mean over the examples. If it returns a mean,
    `forward` returns the same mean, with the criterion's class weights and without ignored examples. A criterion may
    also score a batch as a whole (pairs, triplets, rankings). Then its value counts as the loss of each example in
    training, and `per_example` raises LabError.
    """

    def __init__(self, criterion: Criterion, probe: Probe) -> None:
        super().__init__()
        self.name = name_of(criterion)
        self.call, self.targets, self.bounded = probe.call, probe.targets, probe.bounded
        self.wants = (probe.call.kind,)
        self.form = find_form(probe)
        self.scores_examples = self.form.route is not Route.WHOLE
        self.output_kind = infer(probe)
        self.classifier = find_classifier(criterion, probe.call.width, probe.targets)
        self.criterion = unreduced(criterion, self.form.route)

    @property
    def adapted_criterion(self) -> Criterion:
        """The criterion, for `losslab.doctor`, which knows the classes of torch.nn."""
        return self.criterion

    @property
    def reduction(self) -> str:
        """The reduction of this loss in torch's words: "mean" over all elements, or "batchmean"."""
        return "batchmean" if self.form.over_columns == "sum" else "mean"

    def outputs(self, targets: int) -> int:  # noqa: ARG002 -- the loss was adapted for one number of targets
        """Return the number of outputs of the network: one per class, label or value, or the width of an embedding."""
        return self.call.width

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Compute the scores (N,) from outputs (N, width). Raise LabError if only a whole batch has a value."""
        if not self.scores_examples:
            raise LabError(f"{self.name} has no loss for single examples: it scores a batch as a whole")
        return self.form.scores(self.criterion, self.call, outputs, target)

    def example_weight(self, target: Tensor) -> Tensor:
        """Return the weight (N,) that the criterion gives each example in the mean."""
        return self.form.weights(self.criterion, self.targets, target)

    def total(self, outputs: Tensor, target: Tensor) -> Total:
        """Return the sums of scores and weights. Except for Route.ELEMENTS, the mean of the batch counts N times."""
        outputs, target = self._prepare(outputs, target)
        if len(outputs) == 0:
            # A rank without examples must return gradients of 0 for all parameters, because the other ranks wait.
            zero = sum((parameter.sum() * 0 for parameter in self.parameters()), outputs.sum())
            return Total(zero, torch.zeros_like(zero.detach()), {})
        try:
            if self.form.route is Route.ELEMENTS:
                scores = self.form.scores(self.criterion, self.call, outputs, target)
                return Total(scores.sum(), self.example_weight(target).to(scores.dtype).sum(), {})
            value = self.call(self.criterion, outputs, target).mean()
        except RuntimeError as error:
            if not self.bounded:
                raise
            part = "outputs of the network"
            if bool(((outputs >= 0) & (outputs <= 1)).all()):
                part = "targets of the data" if target.is_floating_point() else ""
            problem = f"does not accept the {part}, only values between 0 and 1: " * bool(part)
            raise LabError(f"{self.name} {problem}{message_of(error)}") from error
        count = torch.full_like(value.detach(), len(outputs))
        return Total(value if self.form.summed else value * count, count, {})

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """Return the class logits (N, C) of the criterion's own classifier if it has one, else the predicted values."""
        if self.classifier is None:
            return outputs.exp() if self.output_kind is OutputKind.LOG_VALUES else outputs
        dtype = next((parameter.dtype for parameter in self.parameters()), torch.float32)
        logits: Tensor = getattr(self.criterion, self.classifier)(outputs.to(dtype))
        return logits

    def to_logits(self, outputs: Tensor) -> Tensor | None:
        """Return the logits (N, C) of classes or labels; None if the criterion takes the outputs for something else."""
        kinds = {OutputKind.LOGITS, OutputKind.BINARY_LOGITS, OutputKind.SCORES, OutputKind.LOG_PROBABILITIES}
        has_logits = self.classifier is not None or self.output_kind in kinds
        return self.to_predictions(outputs) if has_logits else None

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Convert outputs to probabilities (N, C) as `output_kind` implies; by a softmax if it is unknown."""
        predictions = self.to_predictions(outputs)
        match self.output_kind:
            case OutputKind.BINARY_LOGITS:
                return torch.sigmoid(predictions)
            case OutputKind.LOG_PROBABILITIES:
                return torch.exp(predictions)
            case OutputKind.PROBABILITIES | OutputKind.VALUES:  # clamped for logarithms, as in ResidualLoss
                return predictions.clamp(torch.finfo(torch.float32).eps, 1.0)
            case _:
                return torch.softmax(predictions, dim=1)
