"""The metrics of `losslab.models.metrics` for many members at once: sums over the examples, each (M, ...)."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification.accuracy import _accuracy_reduce
from torchmetrics.functional.classification.f_beta import _fbeta_reduce
from torchmetrics.functional.classification.precision_recall import _precision_recall_reduce
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score

from losslab.data.batch import DataSpec
from losslab.models.metrics import EvaluationMetrics, normalise_rows
from losslab.targets import Task

_BINS = 15
"""The number of bins of the calibration error, as in `losslab.models.metrics.ECE`."""


class RunningMeans:
    """Weighted means of M members over the examples of all batches, with float64 sums. See `RunningMean`."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.sums = torch.zeros(2, size, dtype=torch.float64, device=device)

    def reset(self) -> None:
        """Set all sums to 0."""
        self.sums.zero_()

    def update(self, totals: Tensor, weights: Tensor | float) -> None:
        """Add a batch: the sums of the values (M,), and of the weights (M,), or the number of examples."""
        self.sums[0] += totals.detach()
        self.sums[1] += weights.detach() if isinstance(weights, Tensor) else weights

    def compute(self) -> Tensor:
        """Return Σ values / Σ weights of each member (M,)."""
        return self.sums[0] / self.sums[1]


class StackedMetrics:
    """The metrics of `EvaluationMetrics`, in the same order, with a value for each of M members.

    Args:
        spec: specification of the data.
        size: the number M of members.
        device: device of the sums.
    """

    def __init__(self, spec: DataSpec, size: int, device: torch.device) -> None:
        self.spec, self.size, self.device = spec, size, device
        self.reset()

    @property
    def names(self) -> list[str]:
        """Names of the metrics, in the order of `compute`."""
        return EvaluationMetrics(self.spec).names

    def reset(self) -> None:
        """Forget all batches."""
        size, columns = self.size, self.spec.targets
        if self.spec.task is Task.REGRESSION:
            self._errors = {
                "mae": MeanAbsoluteError(num_outputs=size * columns),
                "mse": MeanSquaredError(num_outputs=size * columns),
                "r2": R2Score(multioutput="raw_values"),
            }
            for metric in self._errors.values():
                metric.set_dtype(torch.float64).to(self.device)
            return
        labels = (1, columns) if self.spec.task is Task.MULTICLASS else (columns, 2)
        self._confusion = torch.zeros(size, *labels, labels[1], dtype=torch.int64, device=self.device)
        self._nll, self._brier = RunningMeans(size, self.device), RunningMeans(size, self.device)
        self._calibration = torch.zeros(3, size, _BINS, dtype=torch.float64, device=self.device)

    def update(self, predictions: Tensor, probabilities: Tensor | None, truth: Tensor) -> None:
        """Add a batch: predictions, probabilities (both of `LossStack`) and true targets, each (M, N, ...)."""
        predictions, truth = _to_float64(predictions), _to_float64(truth)
        if probabilities is None:
            columns = [each.transpose(0, 1).flatten(1) for each in (predictions, truth)]  # (N, M·D)
            for metric in self._errors.values():
                metric.update(*columns)
            return
        rows = _to_float64(probabilities)
        if self.spec.task is Task.MULTICLASS:
            rows = normalise_rows(rows.flatten(0, 1)).view_as(rows)
            self._count(predictions.argmax(2).unsqueeze(2), truth.unsqueeze(2))
            p_true = rows.gather(2, truth.unsqueeze(2)).squeeze(2)
            self._brier.update((rows.square().sum(2) - 2 * p_true + 1).sum(1), truth.shape[1])
            confidence, predicted = rows.max(2)
            self._add_to_bins(confidence, predicted == truth)
        else:
            rows = rows.clamp(max=1)
            self._count((rows > 0.5).long(), truth.long())
            p_true = torch.where(truth > 0.5, rows, 1 - rows).flatten(2).unsqueeze(3)
            self._brier.update((rows - truth).square().sum((1, 2)), truth.shape[1])
            if self.spec.task is Task.BINARY:
                self._add_to_bins(rows.squeeze(2), truth.squeeze(2))
        losses = -p_true.clamp(min=torch.finfo(torch.float32).eps).log()
        self._nll.update(losses.flatten(1).sum(1), truth.shape[1])

    def compute(self) -> dict[str, Tensor]:
        """Return each metric (M,) by name."""
        if self.spec.task is Task.REGRESSION:
            examples: Any = self._errors["r2"].total
            known = {name: metric for name, metric in self._errors.items() if name != "r2" or examples > 1}
            values = {name: metric.compute().view(self.size, -1).mean(1) for name, metric in known.items()}
            return values | ({} if "r2" in known else {"r2": torch.full_like(values["mse"], torch.nan)})
        values = self._decision_metrics() | {"brier": self._brier.compute()}
        if self.spec.task is not Task.MULTILABEL:
            count, confidence, correct = self._calibration
            values["ece"] = (correct - confidence).abs().sum(1) / count.sum(1)
        return values | {"nll": self._nll.compute()}

    def _decision_metrics(self) -> dict[str, Tensor]:
        """Return the metrics of predicted classes, computed from the confusion matrices by torchmetrics."""
        matrix, task = self._confusion.double(), self.spec.task
        matrix = matrix.squeeze(1) if task is Task.MULTICLASS else matrix
        if task is Task.MULTICLASS:
            true_positives = matrix.diagonal(dim1=1, dim2=2)
            false_positives, false_negatives = matrix.sum(1) - true_positives, matrix.sum(2) - true_positives
            true_negatives = matrix.sum((1, 2)).unsqueeze(1) - true_positives - false_positives - false_negatives
        else:
            true_negatives, false_positives, false_negatives, true_positives = matrix.flatten(2).unbind(2)
        counts = (true_positives, false_positives, true_negatives, false_negatives)
        if task is Task.BINARY:
            counts = tuple(each.squeeze(1) for each in counts)  # type: ignore[assignment]
        average: Any = "binary" if task is Task.BINARY else "macro"
        options: Any = {"multidim_average": "samplewise", "multilabel": task is Task.MULTILABEL}
        of_accuracy: Any = "micro" if task is Task.MULTICLASS else average
        return {
            "accuracy": _accuracy_reduce(*counts, average=of_accuracy, **options),
            "f1": _fbeta_reduce(*counts, beta=1.0, average=average, **options),
            "precision": _precision_recall_reduce("precision", *counts, average=average, **options),
            "recall": _precision_recall_reduce("recall", *counts, average=average, **options),
        }

    def _count(self, predicted: Tensor, truth: Tensor) -> None:
        """Add predicted and true classes, int64 (M, N, labels), to the confusion matrices (M, labels, C, C)."""
        size, labels, classes, _ = self._confusion.shape
        matrix = torch.arange(size * labels, device=self.device).view(size, 1, labels)
        cells = ((matrix * classes + truth) * classes + predicted).flatten()
        self._confusion += torch.bincount(cells, minlength=self._confusion.numel()).view_as(self._confusion)

    def _add_to_bins(self, confidence: Tensor, correct: Tensor) -> None:
        """Add confidences and whether predictions are correct, both (M, N), to the bins of the calibration error."""
        edges = torch.linspace(0, 1, _BINS + 1, dtype=torch.float64, device=self.device)
        bins = torch.bucketize(confidence, edges[1:-1], right=True)
        for sums, values in zip(self._calibration, (torch.ones_like(confidence), confidence, correct), strict=True):
            sums.scatter_add_(1, bins, values.double())


def _to_float64(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values
