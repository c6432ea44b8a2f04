"""One evaluation: a run is opened, asked about every example of a split, and measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from rich import get_console
from rich.progress import Progress, TaskID

from losslab.analysis.evaluate import metrics, soft_labels
from losslab.analysis.evaluate.predictions import Answers, Array, answers
from losslab.analysis.outputs import SplitOutputs, collect_outputs
from losslab.data.batch import Examples
from losslab.errors import LabError
from losslab.models.metrics import EvaluationMetrics
from losslab.targets import Task
from losslab.training.distributed import environment
from losslab.training.experiment import Experiment
from losslab.training.reopen import EvaluationRequest, open_run


@dataclass(frozen=True)
class Evaluation:
    """What there is to say of a run on a split."""

    look: EvaluationRequest
    experiment: Experiment
    answers: Answers
    values: dict[str, float]
    """SPLIT/METRIC: the yardsticks as training measures them, and what `measures` adds."""
    curves: list[metrics.Curves]
    """ROC and PR; none of values."""
    people: Array | None = None
    """What people said, if that was asked for (N, C)."""
    soft: Path | None = None
    """The file that says it."""


def evaluate(look: EvaluationRequest, soft: Path | None = None) -> Evaluation:
    """Open a run and measure it on a split. On several processes each looks at its share, and all get the whole.

    Args:
        look: which run, weights and data.
        soft: a file of people's distributions over the classes (see `soft_labels.load`).

    Raises:
        LabError: the run cannot be opened, its outputs are not finite, or the soft labels do not fit.
    """
    experiment = open_run(look)
    if soft is not None and experiment.data.facts.task is not Task.MULTICLASS:
        soft_labels.refuse(experiment.data.facts.task)
    bar = Bar(look.split)
    experiment.trainer.callbacks.append(bar)  # type: ignore[attr-defined]
    try:
        seen = collect_outputs(experiment, look.split)
    finally:
        bar.stop()
    if not len(seen.index):
        raise LabError(f"the split {look.split} holds no examples")
    found = answers(experiment.learner, seen)
    values = _yardsticks(experiment, look.split, seen) | _prefixed(look.split, metrics.more(found))
    curves = [metrics.curves(found, kind) for kind in ("roc", "pr")] if found.probabilities is not None else []
    for curve in curves:
        area = "roc_auc" if curve.kind == "roc" else "average_precision"
        averages = curve.averages or curve.each
        suffix = {"micro": "/micro", "macro": ""}
        values |= {f"{look.split}/{area}{suffix.get(each.name, '')}": each.area for each in averages}
    people = None if soft is None else soft_labels.load(soft, found, _whole(experiment))
    if people is not None:
        values |= _prefixed(look.split, soft_labels.measures(found, people))
    return Evaluation(look, experiment, found, values, curves, people, soft)


def _yardsticks(experiment: Experiment, split: str, seen: SplitOutputs) -> dict[str, float]:
    measured = "val" if split == "train" else split  # as `outcomes` says
    named = experiment.learner.values.items()
    values = {name.partition("/")[2]: value for name, value in named if name.startswith(f"{measured}/")}
    if experiment.trainer.world_size > 1:
        values |= _in_order(experiment, seen)
    return _prefixed(split, values)


def _in_order(experiment: Experiment, seen: SplitOutputs) -> dict[str, float]:
    """The yardsticks summed batch by batch, as one process does: sums of several differ in the last digits."""
    learner, size = experiment.learner, experiment.data.eval_batch_size or len(seen.index)
    device = next(learner.parameters()).device
    yardsticks, loss = EvaluationMetrics(learner.facts).without_sync(), torch.zeros((), dtype=torch.float64)
    weight = loss.clone()
    with torch.no_grad():
        for start in range(0, len(seen.index), size):
            part = slice(start, start + size)
            outputs = seen.outputs[part].to(device)
            probabilities = learner.probabilities(outputs)
            meant = None if probabilities is None else probabilities.cpu()
            yardsticks.update(learner.predictions(outputs).cpu(), meant, seen.truth[part])
            loss += seen.loss[part].sum()
            weight += seen.weight[part].to(seen.loss.dtype).sum()
    return {name: value.item() for name, value in ({"loss": loss / weight} | yardsticks.compute()).items()}


def _whole(experiment: Experiment) -> int:
    """How many examples there are at least in the set that the splits were drawn from."""
    held = [source.index for source in experiment.data.splits.values() if isinstance(source, Examples)]
    return 1 + max((int(index.max()) for index in held), default=-1)


def _prefixed(split: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{split}/{name}": value for name, value in values.items()}


class Bar(Callback):
    """Shows how many batches were looked at, where somebody can see it."""

    def __init__(self, split: str) -> None:
        self.split = split
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Begin."""
        if environment.current_rank().rank == 0 and get_console().is_terminal:
            batches = trainer.num_test_batches if self.split == "test" else trainer.num_val_batches
            self._progress = Progress(console=get_console(), transient=True)
            self._task = self._progress.add_task(f"looking at {self.split}", total=float(sum(batches)))
            self._progress.start()

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Go on."""
        if self._progress is not None:
            self._progress.advance(self._task)

    def stop(self) -> None:
        """End, whatever happened."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    on_test_start = on_validation_start
    on_test_batch_end = on_validation_batch_end
