"""Finished runs, reopened with their trained weights, and the examples that they are evaluated on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from losslab.analysis.explain.select_runs import distinct_labels, run_labels
from losslab.data.batch import Batch
from losslab.data.module import split_rows
from losslab.models.learner import Learner
from losslab.runs import RunFolder
from losslab.targets import Task
from losslab.training.experiment import Experiment
from losslab.training.reopen import EvaluationRequest, reopen


@dataclass(frozen=True)
class Solution:
    """A finished run with its weights loaded and its data set up."""

    label: str
    """Label of the run in a figure, unique among the runs."""
    loss: str
    """Label of the loss of the run; equal losses have equal labels."""
    folder: RunFolder
    config: dict[str, Any]
    experiment: Experiment
    frozen: frozenset[str]
    """Names of the parameters of the network that were not trained."""

    @property
    def learner(self) -> Learner:
        """The network and the loss."""
        return self.experiment.learner

    @property
    def weights(self) -> dict[str, Tensor]:
        """The parameters of the network ("network.…") and of the loss ("loss.…")."""
        learner = self.learner
        parts = [("network", learner.network), ("loss", learner.loss)]
        return {f"{part}.{name}": p.detach() for part, module in parts for name, p in module.named_parameters()}

    @property
    def is_regression(self) -> bool:
        """Whether the metric is the mean squared error; otherwise it is the error rate."""
        return self.learner.spec.task is Task.REGRESSION

    @property
    def metric_name(self) -> str:
        """Name of the metric in a sentence."""
        return "mean squared error" if self.is_regression else "error rate"

    @property
    def metric_scale(self) -> int:
        """Factor of the metric on an axis: 100 for error rates, which are drawn in per cent."""
        return 1 if self.is_regression else 100

    @property
    def metric_axis(self) -> str:
        """Label of an axis for the metric."""
        return self.metric_name if self.is_regression else f"{self.metric_name} (%)"


def load_solutions(runs: Sequence[RunFolder], checkpoint: str) -> list[Solution]:
    """Reopen runs with the weights of a checkpoint, "best" or "last", and set up their data.

    Raises:
        LabError: a run or checkpoint does not exist, weights are not finite, or the data are not available.
    """
    configs = [run.read_config() for run in runs]
    labels, losses = run_labels(configs), distinct_labels(configs, ["loss"])
    solutions = []
    for label, loss, run, config in zip(labels, losses, runs, configs, strict=True):
        experiment = reopen(EvaluationRequest(run.path, checkpoint=checkpoint, trusted=run.trusted))
        learner, data = experiment.learner, experiment.data
        data.prepare_data()
        data.setup()
        if data.class_counts is not None:
            learner.loss.set_class_counts(data.class_counts)
        frozen = frozenset(name for name, value in learner.network.named_parameters() if not value.requires_grad)
        learner.to(experiment.trainer.strategy.root_device).eval().requires_grad_(requires_grad=False)
        solutions.append(Solution(label, loss, run, config, experiment, frozen))
    return solutions


def load_batches(solution: Solution, split: str, count: int | None, seed: int) -> list[Batch]:
    """Load examples of a split ("train", "val" or "test"), not augmented, in the network's dtype and on its device.

    If the split has more than `count` examples, `count` of them are drawn at random with the seed.
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
    """Return whether the training data of the runs were corrupted differently."""
    return len({(run.read_faults() or {}).get("sha256") for run in runs}) > 1
