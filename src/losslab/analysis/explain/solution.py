"""A finished run, reopened with the weights it learnt, and the examples that it is explained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from losslab.analysis.explain.select_runs import loss_labels, run_labels
from losslab.data.batch import Batch
from losslab.data.module import split_rows
from losslab.models.learner import Learner
from losslab.runs import RunFolder
from losslab.targets import Task
from losslab.training import weights
from losslab.training.experiment import Experiment, rebuild


@dataclass(frozen=True)
class Solution:
    """A run with its weights loaded and its data set up."""

    label: str
    """Distinguishes the run from the others in a figure."""
    loss: str
    """Distinguishes its loss from the others' losses."""
    folder: RunFolder
    config: dict[str, Any]
    experiment: Experiment
    frozen: frozenset[str]
    """Names of the network's parameters that were not trained."""

    @property
    def learner(self) -> Learner:
        """The network and the loss."""
        return self.experiment.learner

    @property
    def weights(self) -> dict[str, Tensor]:
        """The parameters of the network ("network.…") and of the loss ("loss.…")."""
        modules = {"network": self.learner.network, "loss": self.learner.loss}
        named = ((part, *pair) for part, module in modules.items() for pair in module.named_parameters())
        return {f"{part}.{name}": value.detach() for part, name, value in named}

    @property
    def is_regression(self) -> bool:
        """Whether the metric is the mean squared error, else it is the error rate."""
        return self.learner.spec.task is Task.REGRESSION

    @property
    def metric_name(self) -> str:
        """The metric in words."""
        return "mean squared error" if self.is_regression else "error rate"

    @property
    def metric_scale(self) -> int:
        """The factor from metric to axis units: error rates are drawn in per cent."""
        return 1 if self.is_regression else 100

    @property
    def metric_axis(self) -> str:
        """The label of an axis of the metric."""
        return self.metric_name if self.is_regression else f"{self.metric_name} (%)"


def load_solutions(runs: Sequence[RunFolder], checkpoint: str) -> list[Solution]:
    """Reopen runs with the weights of the checkpoint "best" or "last", and set up their data.

    Raises:
        LabError: a run or checkpoint does not exist, weights are not finite, or the data are not available.
    """
    configs = [run.read_config() for run in runs]
    solutions = []
    for label, loss, run, config in zip(run_labels(configs), loss_labels(configs), runs, configs, strict=True):
        experiment = rebuild(run, config)
        learner, data = experiment.learner, experiment.data
        path = run.checkpoint(checkpoint)
        weights.load(learner, path)
        weights.check_finite(learner, path)
        data.prepare_data()
        data.setup()
        if data.class_counts is not None:
            learner.loss.set_class_counts(data.class_counts)
        frozen = frozenset(name for name, value in learner.network.named_parameters() if not value.requires_grad)
        learner.to(experiment.trainer.strategy.root_device).eval().requires_grad_(requires_grad=False)
        solutions.append(Solution(label, loss, run, config, experiment, frozen))
    return solutions


def load_batches(solution: Solution, split: str, count: int | None, seed: int) -> list[Batch]:
    """Examples of a split, unaugmented, in the network's dtype and on its device.

    Args:
        solution: the run whose data they are.
        split: "train", "val" or "test".
        count: how many to draw at random; None, or more than there are, for all.
        seed: of the draw.
    """
    data, learner = solution.experiment.data, solution.learner
    source = data.splits[split]
    if count is not None and count < source.size:
        rows = split_rows(source.size, (count,), seed)[0]
        data.splits = {**data.splits, split: source.take(rows.to(source.device))}
    dtype = next((p.dtype for p in learner.network.parameters() if p.is_floating_point()), torch.float32)
    data.val_split = split if split == "train" else "val"
    loader = data.test_dataloader() if split == "test" else data.val_dataloader()
    device = learner.device
    try:
        return [Batch(batch.inputs.to(device, dtype), *(part.to(device) for part in batch[1:])) for batch in loader]
    finally:
        data.val_split = "val"
        data.splits = {**data.splits, split: source}
        data.teardown()


def corruption_differs(runs: Sequence[RunFolder]) -> bool:
    """Whether the runs learnt from differently corrupted training data."""
    return len({(run.read_faults() or {}).get("sha256") for run in runs}) > 1
