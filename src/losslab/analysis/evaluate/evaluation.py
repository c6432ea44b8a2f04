"""Evaluation of a run on a split: reopens the run, collects its outputs, and computes all metrics."""

from contextlib import suppress
from dataclasses import dataclass, replace
from math import isclose, isfinite
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from rich import get_console
from rich.progress import Progress

from losslab.analysis.evaluate import calibration, soft_labels
from losslab.analysis.evaluate.calibration import Calibration
from losslab.analysis.evaluate.extra_metrics import Curves, compute_curves, scalar_metrics
from losslab.analysis.evaluate.predictions import Array, Predictions, interpret_outputs
from losslab.analysis.outputs import SplitOutputs, collect_outputs
from losslab.data.batch import Examples
from losslab.errors import LabError
from losslab.io.untrusted import read_json
from losslab.models.metrics import EvaluationMetrics
from losslab.targets import Task
from losslab.training.distributed import environment
from losslab.training.experiment import Experiment
from losslab.training.reopen import EvaluationRequest, reopen

_FITTED_METRICS = {"temperature": "nll", "thresholds": "accuracy", "f1_thresholds": "f1"}
"""The metric of the validation split to which each method is fitted."""


@dataclass(frozen=True)
class Fit:
    """The metric that a calibration maximises or minimises, on the validation split."""

    examples: int
    metric: str
    before: float
    after: float


@dataclass(frozen=True)
class Calibrated:
    """The same examples after calibration."""

    method: str
    """A method of `calibration.METHODS`."""
    calibration: Calibration
    fit: Fit | None
    """None for logit adjustment, which uses no validation examples."""
    predictions: Predictions
    values: dict[str, float]
    """The metrics by name, such as "test/accuracy"; not the loss, which is of the outputs as they are."""


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating a run on a split."""

    request: EvaluationRequest
    experiment: Experiment
    predictions: Predictions
    values: dict[str, float]
    """All metrics by name, such as "test/accuracy"."""
    curves: list[Curves]
    """The ROC curves and the PR curves; empty for a regression."""
    human: Array | None = None
    """The human label distributions (N, C); None if no file of them was given."""
    soft_labels: Path | None = None
    """The file with the human label distributions, if one was given."""
    calibrated: Calibrated | None = None
    """The result of calibration, if a method was given."""

    def not_reproduced(self) -> dict[str, tuple[float, float]]:
        """Return the metrics that differ by more than rounding from metrics.json: the value there, and the value here.

        It contains those of the test split and, of the best epoch, of the validation split, both of the best weights.
        """
        folder, split, recorded = self.request.folder, self.request.split, None
        with suppress(LabError, OSError):  # a missing or damaged file has nothing to compare with
            if folder.checkpoint(self.request.checkpoint).resolve() == folder.checkpoint("best").resolve():
                recorded = read_json(folder.metrics)
        limits = folder.read_unchecked_config()["trainer"]
        limit = limits.get(f"limit_{split}_batches")
        is_part = limits.get("fast_dev_run") or limits.get("overfit_batches") or limit not in (None, 1.0)
        is_part = is_part or isinstance(limit, int)  # 1 is one batch, and 1.0 all of them
        if not isinstance(recorded, dict) or self.request.data or split == "train" or is_part:
            return {}
        pairs = {name: (recorded.get(name), value) for name, value in self.values.items()}
        return {
            name: (float(was), value)
            for name, (was, value) in pairs.items()
            if isinstance(was, int | float) and isfinite(was) and not isclose(was, value, rel_tol=1e-3, abs_tol=1e-6)
        }


def evaluate(
    request: EvaluationRequest, soft_labels_file: Path | None = None, calibration_method: str | None = None
) -> Evaluation:
    """Reopen a run and evaluate it on a split.

    With a file of human label distributions, which `soft_labels.load` describes, the predictions are also compared with
    these. With a method of `calibration.METHODS`, the predictions are also evaluated after calibration, which is fitted
    on the validation split. With several processes, each evaluates a part of the split, and all return the whole
    result.

    Raises:
        LabError: the run cannot be opened, its outputs are not finite, or the soft labels or the method do not fit.
    """
    experiment, split = reopen(request), request.split
    task = experiment.data.spec.task
    if soft_labels_file is not None and task is not Task.MULTICLASS:
        raise LabError(f"--soft-labels needs data with exclusive classes, these data are {task}: leave the option out")
    if calibration_method is not None:
        _check_calibration(calibration_method, experiment)
    outputs = _collect(experiment, split)
    predictions = interpret_outputs(experiment.learner, outputs)
    values = _logged_metrics(experiment, split, outputs)
    human = None
    if soft_labels_file is not None:
        sources = [source for source in experiment.data.splits.values() if isinstance(source, Examples)]
        min_size = 1 + max((int(source.index.max()) for source in sources), default=-1)
        human = soft_labels.load(soft_labels_file, predictions, min_size)
    calibrated = None
    if calibration_method is not None:
        calibrated = _calibrate(calibration_method, experiment, request, outputs, predictions, human)
    curves = [] if task is Task.REGRESSION else [compute_curves(predictions, kind) for kind in ("roc", "pr")]
    values = _with_split(split, values | _further_metrics(predictions, curves, human))
    return Evaluation(request, experiment, predictions, values, curves, human, soft_labels_file, calibrated)


def _collect(experiment: Experiment, split: str, advice: str = "choose another split") -> SplitOutputs:
    """Return the outputs for a split, and show a progress bar meanwhile. Raise LabError if there are no examples."""
    bar = _ProgressBar(split)
    experiment.trainer.callbacks.append(bar)  # type: ignore[attr-defined]
    try:
        outputs = collect_outputs(experiment, split)
    finally:
        bar.progress.stop()
        experiment.trainer.callbacks.remove(bar)  # type: ignore[attr-defined]
    if not len(outputs.index):
        raise LabError(f"the split {split} contains no examples: {advice}")
    return outputs


def _further_metrics(predictions: Predictions, curves: list[Curves], human: Array | None) -> dict[str, float]:
    """Return the metrics that training does not log, by their names without the split."""
    values = scalar_metrics(predictions)
    for each in curves:
        values |= each.areas()
    return values if human is None else values | soft_labels.soft_metrics(predictions, human)


def _with_split(split: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{split}/{name}": value for name, value in values.items()}


def _check_calibration(method: str, experiment: Experiment) -> None:
    """Raise LabError unless the method fits the task, and the outputs are logits. Tries a few random outputs."""
    spec, loss = experiment.learner.spec, experiment.learner.loss
    calibration.check_method(method, spec.task)
    generator = torch.Generator().manual_seed(0)
    calibration.find_logits(loss, torch.randn(4, loss.outputs(spec.targets), generator=generator), spec.task)


def _calibrate(
    method: str,
    experiment: Experiment,
    request: EvaluationRequest,
    outputs: SplitOutputs,
    predictions: Predictions,
    human: Array | None,
) -> Calibrated:
    """Fit a calibration, and evaluate it on the examples of `predictions`."""
    learner, data, task = experiment.learner, experiment.data, experiment.learner.spec.task
    device = next(learner.parameters()).device

    def logits(of: SplitOutputs) -> Array:
        return calibration.find_logits(learner.loss, of.outputs.to(device), task)

    metric = _FITTED_METRICS.get(method)
    validation = outputs
    if metric is not None and request.split != "val":
        validation = _collect(experiment, "val", "calibration is fitted on it: train a run with validation examples")
    examples = logits(validation), validation.truth.numpy()
    counts = None if data.class_counts is None else data.class_counts.numpy()
    size = None if task is Task.MULTICLASS else _training_size(experiment)
    fitted = calibration.fit_calibration(method, *examples, task, class_counts=counts, examples=size)
    fit, own = None, logits(outputs)
    if metric is not None:
        values = [calibration.calibrated_metrics(each, *examples, learner.spec) for each in (Calibration(), fitted)]
        fit = Fit(len(validation.index), metric, *(each[metric] for each in values))
    after = replace(
        predictions, prediction=fitted.predict(own, task), probabilities=fitted.probabilities(own, task),
        scores=fitted.apply(own) if task is Task.MULTICLASS else None,
    )  # fmt: skip
    new = calibration.calibrated_metrics(fitted, own, outputs.truth.numpy(), learner.spec)
    new |= _further_metrics(after, [compute_curves(after, kind) for kind in ("roc", "pr")], human)
    return Calibrated(method, fitted, fit, after, _with_split(request.split, new))


def _training_size(experiment: Experiment) -> int | None:
    """Return the number of examples that the run was trained on; None if it is not recorded."""
    recorded = experiment.folder.read_metadata()
    if recorded is None:
        return experiment.data.splits["train"].size
    try:
        return int(recorded["contents"]["train"][0])
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):  # runs of early versions do not record it
        return None


def _logged_metrics(experiment: Experiment, split: str, outputs: SplitOutputs) -> dict[str, float]:
    """Return the metrics that training also logs, by their names without the split."""
    prefix = "val/" if split == "train" else f"{split}/"  # `collect_outputs` names the metrics of "train" val/...
    logged = experiment.learner.values.items()
    values = {name.removeprefix(prefix): value for name, value in logged if name.startswith(prefix)}
    if experiment.trainer.world_size > 1:
        values |= _sum_in_order(experiment, outputs)
    return values


def _sum_in_order(experiment: Experiment, outputs: SplitOutputs) -> dict[str, float]:
    """Compute the logged metrics batch by batch, as one process does: sums over ranks differ in the last digits."""
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
            if learner.loss.scores_examples:
                loss += outputs.loss[rows].sum()
                weight += outputs.weight[rows].to(outputs.loss.dtype).sum()
            else:
                target = learner.encode_target(outputs.target[rows].to(device), batch.dtype)
                value, count, _ = learner.loss.total(batch, target)
                loss, weight = loss + value.cpu(), weight + count.cpu()
    return {name: value.item() for name, value in ({"loss": loss / weight} | logged.compute()).items()}


class _ProgressBar(Callback):
    """Shows on a terminal how many batches are evaluated."""

    def __init__(self, split: str) -> None:
        shown = environment.current_rank().rank == 0 and get_console().is_terminal
        self.progress = Progress(console=get_console(), transient=True, disable=not shown)
        self.split, self._task = split, self.progress.add_task(f"evaluating {split}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Start the bar."""
        batches = trainer.num_test_batches if self.split == "test" else trainer.num_val_batches
        self.progress.update(self._task, total=float(sum(batches)))
        self.progress.start()

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Advance the bar by a batch."""
        self.progress.advance(self._task)

    on_test_start = on_validation_start
    on_test_batch_end = on_validation_batch_end
