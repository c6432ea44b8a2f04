"""Network outputs, targets and per-example losses of every example of a split."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from torch import Tensor, distributed

from losslab.data.batch import Batch
from losslab.models.learner import Learner
from losslab.training.experiment import Experiment, evaluate


@dataclass(frozen=True)
class SplitOutputs:
    """All examples of a split, sorted by `index`, on the CPU."""

    outputs: Tensor
    """Raw network outputs (N, ...)."""
    target: Tensor
    """Targets of the loss, of the kind that the data module provides."""
    truth: Tensor
    """Targets of the metrics: classes (N,), 0/1 labels (N, K) or values (N, D)."""
    index: Tensor
    """Index of each example in the data set, int64 (N,), ascending."""
    loss: Tensor
    """Loss of each example (N,), under the loss that trained the network; NaN if that scores only whole batches."""
    weight: Tensor
    """Weight of each example (N,) in the mean loss."""

    @property
    def mean_loss(self) -> float:
        """Σ loss / Σ weight, summed in float64."""
        return float(self.loss.double().sum() / self.weight.double().sum())


def collect_outputs(experiment: Experiment, split: str) -> SplitOutputs:
    """Run the learner once over a split without augmentation.

    With several processes, each evaluates its part of the split and returns the whole result. Also fills
    `learner.values` with the metrics of the split, as `evaluate` does; those of "train" are named "val/...".

    Args:
        experiment: the experiment with loaded weights.
        split: the split, "train", "val" or "test".

    Raises:
        LabError: the data cannot be loaded.
    """
    recorder, data, trainer = _Recorder(), experiment.data, experiment.trainer
    trainer.callbacks.append(recorder)  # type: ignore[attr-defined]
    data.val_split = "train" if split == "train" else "val"
    try:
        evaluate(experiment, "test" if split == "test" else "val")
    finally:
        data.val_split = "val"
        trainer.callbacks.remove(recorder)  # type: ignore[attr-defined]
    return _gather(recorder.batches)


class _Recorder(Callback):
    """Keeps the outputs of each evaluated batch."""

    def __init__(self) -> None:
        self.batches: list[SplitOutputs] = []

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *hook: Any, **more: Any) -> None:  # noqa: ARG002
        """Record a batch."""
        assert isinstance(pl_module, Learner)  # noqa: S101 -- for the type checker
        outputs, batch = hook[:2]
        self.batches.append(_record(pl_module, outputs, batch))

    on_test_batch_end = on_validation_batch_end


def _record(learner: Learner, outputs: Tensor, batch: Batch) -> SplitOutputs:
    target = learner.encode_target(batch.target, outputs.dtype)
    with torch.no_grad():
        weight = loss = learner.loss.example_weight(target)
        inputs = learner.loss.loss_inputs(outputs, batch.inputs, learner.network)
        loss = learner.loss.per_example(inputs, target) if learner.loss.scores_examples else weight * torch.nan
    tensors = (outputs, batch.target, batch.truth, batch.index, loss, weight)
    return SplitOutputs(*(tensor.detach().cpu() for tensor in tensors))


def _gather(batches: list[SplitOutputs]) -> SplitOutputs:
    """Concatenate the batches of all processes, sorted by index."""
    if distributed.is_available() and distributed.is_initialized():
        shares: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(shares, batches)
        batches = [batch for share in shares for batch in share]
    columns = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in SplitOutputs.__annotations__}
    order = columns["index"].argsort()
    return SplitOutputs(**{name: column[order] for name, column in columns.items()})
