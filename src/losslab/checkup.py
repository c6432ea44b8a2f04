"""The doctor in the lab: the first training batch of a run is looked at before its first step."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from losslab.data.batch import Batch
from losslab.data.module import MemoryDataModule
from losslab.doctor import Finding, Severity, examine
from losslab.errors import LabError
from losslab.learner import Learner
from losslab.losses.base import Loss
from losslab.targets import encode

logger = logging.getLogger(__name__)


def check(learner: Learner, data: MemoryDataModule, device: torch.device) -> None:
    """Refuse a run in which something is surely wrong, and warn of what is likely wrong.

    Nothing that the run computes is changed by it. Every process of a run looks at the same batch, the whole of the
    first, so all of them refuse it or none. The network is moved to the device now, as training would.

    Raises:
        LabError: a line for each thing that is surely wrong.
    """
    learner.network.to(device)
    learner.loss.to(device)
    found = findings(learner, first_batch(data))
    wrong = [finding.line for finding in found if finding.severity is Severity.ERROR]
    if wrong:
        wrong[-1] += "; examine=false trains all the same"
        raise LabError("\n".join(wrong))
    for finding in found:
        logger.warning("%s", finding)


def first_batch(data: MemoryDataModule) -> Batch:
    """The first batch of the first epoch, over all processes, on the CPU unless the data lie elsewhere."""
    return data.train_dataloader().peek()


def findings(learner: Learner, batch: Batch) -> list[Finding]:
    """What the doctor finds in a learner's network, loss and optimizer on a batch, encoded as the learner does it."""
    dtype = next((p.dtype for p in learner.network.parameters() if p.is_floating_point()), torch.float32)
    target = encode(batch.target, learner.facts.kind, learner.kind, learner.facts.targets, dtype)
    optimizer = learner.optimizer(learner.parameters())
    loss = learner.loss if learner.loss.views == 1 else _Agreeing(learner.loss)
    return examine(learner.network, loss, (batch.inputs.to(dtype), _as(dtype, target)), optimizer=optimizer)


class _Agreeing(Loss):
    """A loss that scores several sets of outputs, given the same in each: what can be tried on a network alone."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss, self.wants, self.name = loss, loss.wants, type(loss).__name__

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, C) and the target → (N,)."""
        return self.loss.score(torch.cat([outputs] * self.loss.views, dim=1), target)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """As the loss says → (N, C)."""
        return self.loss.to_probabilities(outputs)


def looked_at(choices: Mapping[str, str | None], learner: Learner, batch: Batch) -> str:
    """What an examination of this batch looks at, in three lines."""
    parameters = sum(p.numel() for p in learner.network.parameters())
    group = learner.optimizer(learner.parameters()).param_groups[0]
    name = getattr(learner.loss, "name", type(learner.loss).__name__)
    lines = {
        "network": f"{choices['model']}, {parameters:,} parameters",
        "loss": f"{choices['loss']} ({name}), {choices['optimizer']} at lr {group['lr']:g}",
        "batch": f"{choices['data']}, inputs {tuple(batch.inputs.shape)}, {learner.kind} targets",
    }
    return "\n".join(f"{label:<11} {value}" for label, value in lines.items())


def _as(dtype: torch.dtype, target: Tensor) -> Tensor:
    """Real values in the precision that training will bring them to; indices as they are."""
    return target.to(dtype) if target.is_floating_point() else target
