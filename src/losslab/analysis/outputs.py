"""What a network says of every example of a split: what evaluation, comparison and explanation look at."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from torch import Tensor, distributed

from losslab.data.batch import Batch
from losslab.models.learner import Learner
from losslab.targets import encode
from losslab.training.experiment import Experiment, evaluate


@dataclass(frozen=True)
class Outcomes:
    """All examples of a split, in the order of their `index`, on the CPU."""

    outputs: Tensor
    """Raw outputs of the network (N, ...)."""
    target: Tensor
    """What the loss is held against, of the kind that the data give."""
    truth: Tensor
    """What metrics are held against: y (N,), 0/1 (N, K) or values (N, D)."""
    index: Tensor
    """int64 (N,), ascending: each example's place in the data set."""
    loss: Tensor
    """Of each example, under the loss that trained the network (N,)."""
    weight: Tensor
    """Of each example in the mean of the loss (N,)."""

    @property
    def mean_loss(self) -> float:
        """Σ loss / Σ weight, summed in float64."""
        return float(self.loss.double().sum() / self.weight.double().sum())


def outcomes(experiment: Experiment, split: str) -> Outcomes:
    """Have the learner, as it is, look at every example of "train", "val" or "test" once and unaugmented.

    On several processes each looks at its share, and all of them get all outcomes. Also fills `learner.values` with
    the metrics of that split, as `evaluate` does; those of "train" are named "val/...".

    Raises:
        LabError: the data cannot be had.
    """
    watcher, data, trainer = _Watcher(), experiment.data, experiment.trainer
    trainer.callbacks.append(watcher)  # type: ignore[attr-defined]
    data.val_split = "train" if split == "train" else "val"
    try:
        evaluate(experiment, "test" if split == "test" else "val")
    finally:
        data.val_split = "val"
        trainer.callbacks.remove(watcher)  # type: ignore[attr-defined]
    return _gathered(watcher.parts)


class _Watcher(Callback):
    """Keeps what is seen of each batch."""

    def __init__(self) -> None:
        self.parts: list[Outcomes] = []

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *seen: Any, **more: Any) -> None:  # noqa: ARG002
        """Keep a batch."""
        assert isinstance(pl_module, Learner)  # noqa: S101 -- for the type checker
        outputs, batch = seen[:2]
        self.parts.append(_seen(pl_module, outputs, batch))

    on_test_batch_end = on_validation_batch_end


def _seen(learner: Learner, outputs: Tensor, batch: Batch) -> Outcomes:
    dtype = torch.promote_types(outputs.dtype, torch.float32)
    target = encode(batch.target, learner.facts.kind, learner.kind, learner.facts.targets, dtype)
    with torch.no_grad():
        loss = learner.loss.per_example(learner.loss.loss_inputs(outputs, batch.inputs, learner.network), target)
        weight = learner.loss.example_weight(target)
    parts = (outputs, batch.target, batch.truth, batch.index, loss, weight)
    return Outcomes(*(part.detach().cpu() for part in parts))


def _gathered(parts: list[Outcomes]) -> Outcomes:
    """All parts of all processes as one, in order."""
    if distributed.is_available() and distributed.is_initialized():
        shares: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(shares, parts)
        parts = [part for share in shares for part in share]
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in Outcomes.__annotations__}
    order = columns["index"].argsort()
    return Outcomes(**{name: column[order] for name, column in columns.items()})
