"""Evaluation of a run on a split: reopen it, collect its outputs, compute all metrics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from rich import get_console
from rich.progress import Progress

from losslab.analysis.evaluate import metrics, soft_labels
from losslab.analysis.evaluate.predictions import Array, Predictions, interpret_outputs
from losslab.analysis.outputs import SplitOutputs, collect_outputs
from losslab.data.batch import Examples
from losslab.errors import LabError
from losslab.models.metrics import EvaluationMetrics
from losslab.targets import Task
from losslab.training.distributed import environment
from losslab.training.experiment import Experiment
from losslab.training.reopen import EvaluationRequest, reopen


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating a run on a split."""

    request: EvaluationRequest
    experiment: Experiment
    predictions: Predictions
    values: dict[str, float]
    """Metrics by their names (SPLIT/METRIC)."""
    curves: list[metrics.Curves]
    """ROC and PR; empty in a regression."""
    human: Array | None = None
    """Human distributions over the classes (N, C), if requested."""
    soft_labels: Path | None = None
    """The file that holds them."""


def evaluate(request: EvaluationRequest, soft_labels_file: Path | None = None) -> Evaluation:
    """Reopen a run and evaluate it on a split. Each of several processes evaluates a share, and all get the result.

    Args:
        request: which run, weights, split and data.
        soft_labels_file: human distributions over the classes (see `soft_labels.load`).

    Raises:
        LabError: the run cannot be opened, its outputs are not finite, or the soft labels do not fit.
    """
    experiment, split = reopen(request), request.split
    task = experiment.data.spec.task
    if soft_labels_file is not None and task is not Task.MULTICLASS:
        raise LabError(f"--soft-labels are distributions over exclusive classes, these data are {task}: leave it out")
    bar = _ProgressBar(split)
    experiment.trainer.callbacks.append(bar)  # type: ignore[attr-defined]
    try:
        outputs = collect_outputs(experiment, split)
    finally:
        bar.progress.stop()
    if not len(outputs.index):
        raise LabError(f"the split {split} holds no examples")
    predictions = interpret_outputs(experiment.learner, outputs)
    values = _logged_metrics(experiment, split, outputs) | metrics.extra_metrics(predictions)
    kinds = () if task is Task.REGRESSION else ("roc", "pr")
    curves = [metrics.compute_curves(predictions, kind) for kind in kinds]
    for each in curves:
        values |= each.areas()
    human = None
    if soft_labels_file is not None:
        sources = [source for source in experiment.data.splits.values() if isinstance(source, Examples)]
        data_set_size = 1 + max((int(source.index.max()) for source in sources), default=-1)  # at least
        human = soft_labels.load(soft_labels_file, predictions, data_set_size)
        values |= soft_labels.soft_metrics(predictions, human)
    values = {f"{split}/{name}": value for name, value in values.items()}
    return Evaluation(request, experiment, predictions, values, curves, human, soft_labels_file)


def _logged_metrics(experiment: Experiment, split: str, outputs: SplitOutputs) -> dict[str, float]:
    """The metrics that training logs, by name without the split."""
    prefix = "val/" if split == "train" else f"{split}/"  # `collect_outputs` logs those of train as val
    logged = experiment.learner.values.items()
    values = {name.removeprefix(prefix): value for name, value in logged if name.startswith(prefix)}
    if experiment.trainer.world_size > 1:
        values |= _sum_in_order(experiment, outputs)
    return values


def _sum_in_order(experiment: Experiment, outputs: SplitOutputs) -> dict[str, float]:
    """The logged metrics summed batch by batch as in one process: sums over ranks differ in the last digits."""
    learner, size = experiment.learner, experiment.data.eval_batch_size or len(outputs.index)
    device = next(learner.parameters()).device
    logged, loss = EvaluationMetrics(learner.spec).without_sync(), torch.zeros((), dtype=torch.float64)
    weight = loss.clone()
    with torch.no_grad():
        for start in range(0, len(outputs.index), size):
            rows = slice(start, start + size)
            batch = outputs.outputs[rows].to(device)
            probabilities = learner.probabilities(batch)
            on_cpu = None if probabilities is None else probabilities.cpu()
            logged.update(learner.predictions(batch).cpu(), on_cpu, outputs.truth[rows])
            loss += outputs.loss[rows].sum()
            weight += outputs.weight[rows].to(outputs.loss.dtype).sum()
    return {name: value.item() for name, value in ({"loss": loss / weight} | logged.compute()).items()}


class _ProgressBar(Callback):
    """Shows the number of evaluated batches on a terminal."""

    def __init__(self, split: str) -> None:
        shown = environment.current_rank().rank == 0 and get_console().is_terminal
        self.progress = Progress(console=get_console(), transient=True, disable=not shown)
        self.split, self._task = split, self.progress.add_task(f"evaluating {split}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Show the bar."""
        batches = trainer.num_test_batches if self.split == "test" else trainer.num_val_batches
        self.progress.update(self._task, total=float(sum(batches)))
        self.progress.start()

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Advance by a batch."""
        self.progress.advance(self._task)

    on_test_start = on_validation_start
    on_test_batch_end = on_validation_batch_end
