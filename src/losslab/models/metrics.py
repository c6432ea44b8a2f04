"""Metrics that do not depend on the loss. They are averages over examples, not over batches.

Sums are float64, so the results do not depend on how the examples are divided into batches and ranks.
"""

from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor, distributed
from torchmetrics import Accuracy, F1Score, Metric, MetricCollection, Precision, Recall
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score

from losslab.data.batch import DataSpec
from losslab.io.metric_names import direction
from losslab.targets import Task

MONITOR = {Task.REGRESSION: "mse", Task.BINARY: "accuracy", Task.MULTICLASS: "accuracy", Task.MULTILABEL: "accuracy"}
"""Monitored metric of each task: for checkpoints, early stopping, tuning and comparison. It is never the loss."""


def monitor_mode(task: Task) -> str:
    """Return "min" or "max": whether lower or higher values of the task's monitored metric are better."""
    return direction(MONITOR[task])


def _float64_device(device: torch.device) -> torch.device:
    """Return the device itself, or the CPU for MPS, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def _to_float64(values: Tensor) -> Tensor:
    """Move values to `_float64_device`, and convert floating-point values to float64."""
    values = values.to(_float64_device(values.device))
    return values.double() if values.is_floating_point() else values


class RunningMean:
    """Weighted mean over the examples of all batches and ranks, with float64 sums of values and weights.

    It computes the same as `Average`, but avoids the overhead of a torchmetrics Metric (0.1 ms per update).
    """

    def __init__(self) -> None:
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        """Reset the sums, and accumulate on this device (on the CPU instead of MPS)."""
        self.device = _float64_device(device)
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.total, self.weight = self.sums.unbind()  # views, so that `update` changes `sums`

    def reset(self) -> None:
        """Set both sums to 0."""
        self.sums.zero_()

    def update(self, total: Tensor, weight: Tensor | float) -> None:
        """Add a batch: the sum of its values (), and the sum of its weights () or its number of examples."""
        self.total += total.detach().to(self.device)
        self.weight += weight.detach().to(self.device) if isinstance(weight, Tensor) else weight

    def compute(self) -> float:
        """Return Σ values / Σ weights over all ranks."""
        sums = self.sums
        if distributed.is_available() and distributed.is_initialized():
            sums = sums.clone()
            distributed.all_reduce(sums)
        total, weight = sums.tolist()
        return total / weight if weight else (sums[0] / sums[1]).item()  # which is NaN or infinite


def sums_of_ranks(averages: Iterable[RunningMean]) -> Tensor:
    """Return the sums of all ranks, (ranks, averages, 2), on the CPU. All ranks must call this together."""
    sums = torch.stack([average.sums for average in averages])
    of_ranks = [sums]
    if distributed.is_available() and distributed.is_initialized():  # Lightning's all_gather is deprecated in torch
        of_ranks = [torch.empty_like(sums) for _ in range(distributed.get_world_size())]
        distributed.all_gather(of_ranks, sums)
    return torch.stack(of_ranks).cpu()


class Average(Metric):
    """`RunningMean` as a torchmetrics Metric, for use in a MetricCollection."""

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, total: Tensor, weight: Tensor | float) -> None:
        """Add a batch: the sum of its values (), and the sum of its weights () or its number of examples."""
        self.total += total
        self.weight += weight

    def compute(self) -> Tensor:
        """Return Σ values / Σ weights, ()."""
        return self.total / self.weight


class NLL(Average):
    """Negative log-likelihood of the truth in nats, -log p_y, summed over an example's labels.

    Probabilities are clamped to at least 1.2e-7, as in scikit-learn's log_loss for float32.
    """

    def update(self, probabilities: Tensor, truth: Tensor) -> None:  # type: ignore[override]
        """Add a batch: probabilities (N, C) and classes (N,), or probabilities (N, K) and 0/1 labels (N, K)."""
        eps = torch.finfo(torch.float32).eps
        if truth.is_floating_point():
            p_true = torch.where(truth > 0.5, probabilities, 1 - probabilities)
        else:
            p_true = probabilities.gather(1, truth[:, None])
        super().update(-p_true.clamp(min=eps).log().sum(), len(truth))


class Brier(Average):
    """Brier score Σ_k (p_k - t_k)² (Brier 1950): from 0 to 2 for exclusive classes, from 0 to 1 for one label."""

    def update(self, probabilities: Tensor, truth: Tensor) -> None:  # type: ignore[override]
        """Add a batch: probabilities (N, C) and classes (N,), or probabilities (N, K) and 0/1 labels (N, K)."""
        if truth.is_floating_point():
            super().update((probabilities - truth).square().sum(), len(truth))
        else:
            p_true = probabilities.gather(1, truth[:, None]).squeeze(1)
            # Σ_k (p_k - t_k)² = Σ p² - 2 p_y + 1, without one-hot targets.
            super().update((probabilities.square().sum(1) - 2 * p_true + 1).sum(), len(truth))


class ECE(Metric):
    """Expected calibration error Σ_b n_b/N |accuracy_b - confidence_b| over equal-width bins (Guo et al. 2017).

    For exclusive classes, the confidence is the largest probability, and the accuracy is the share of correct
    predictions. For one label, they are the probability of 1 and the frequency of 1.
    """

    full_state_update = False
    count: Tensor
    confidence: Tensor
    correct: Tensor

    def __init__(self, bins: int = 15) -> None:
        super().__init__()
        for name in ("count", "confidence", "correct"):
            self.add_state(name, torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, truth: Tensor) -> None:
        """Add a batch: probabilities (N, C) and classes (N,), or probabilities (N, 1) and 0/1 labels (N, 1)."""
        if probabilities.shape == truth.shape:
            confidence, correct = probabilities.flatten(), truth.flatten()
        else:
            confidence, predicted = probabilities.max(1)
            correct = predicted == truth
        edges = torch.linspace(0, 1, len(self.count) + 1, dtype=confidence.dtype, device=confidence.device)
        bins = torch.bucketize(confidence, edges[1:-1], right=True)
        self.count.index_add_(0, bins, torch.ones_like(confidence))
        self.confidence.index_add_(0, bins, confidence)
        self.correct.index_add_(0, bins, correct.to(confidence.dtype))

    def compute(self) -> Tensor:
        """Return the calibration error, (), in [0, 1]."""
        return (self.correct - self.confidence).abs().sum() / self.count.sum()


class EvaluationMetrics:
    """All metrics of a split except the loss. It is not an nn.Module, so Lightning does not cast its float64 sums."""

    def __init__(self, spec: DataSpec) -> None:
        self.task = spec.task
        decisions, probabilistic = _make_metrics(spec)
        for metric in (*decisions.values(), *probabilistic.values()):
            metric.set_dtype(torch.float64)
        self.decision_metrics = MetricCollection(decisions)
        # Without compute groups: torchmetrics merges metrics whose states have equal names and, in the first batch,
        # equal values. Those of NLL and Brier are both 0 if all predictions are certain and correct.
        self.probability_metrics = MetricCollection(probabilistic, compute_groups=False) if probabilistic else None
        self._collections = [each for each in (self.decision_metrics, self.probability_metrics) if each is not None]
        self._device: torch.device | None = None

    @property
    def names(self) -> list[str]:
        """Names of the metrics, in the order of `compute`."""
        return [str(name) for collection in self._collections for name in collection]

    def update(
        self, predictions: Tensor, probabilities: Tensor | None, truth: Tensor, decisions: Tensor | None = None
    ) -> None:
        """Add a batch: the results of `Learner.predictions` and `Learner.probabilities`, and the true targets.

        `decisions` are predicted 0/1 labels (N, K); None to predict the labels with a probability above 0.5.
        """
        if len(truth) == 0:
            return  # a rank's shard of a small batch can be empty, which torchmetrics does not accept
        predictions, truth = _to_float64(predictions), _to_float64(truth)
        if self.probability_metrics is None or probabilities is None:
            self.decision_metrics.update(predictions, truth)
        elif self.task is Task.MULTICLASS:
            self.decision_metrics.update(predictions.argmax(1), truth)
            # The probabilities of one-vs-all and squared-error outputs need not sum to 1.
            self.probability_metrics.update(normalise_rows(_to_float64(probabilities)), truth)
        else:
            probabilities = _to_float64(probabilities).clamp(max=1)  # above 1, torchmetrics applies a sigmoid
            self.decision_metrics.update(probabilities if decisions is None else decisions, truth.long())
            self.probability_metrics.update(probabilities, truth)

    def compute(self) -> dict[str, Tensor]:
        """Return each metric, (), over the examples of all ranks, by name."""
        return {name: value for collection in self._collections for name, value in collection.compute().items()}

    def without_sync(self) -> Self:
        """Make `compute` use the examples of this rank only, and return this object."""
        for collection in self._collections:
            for metric in collection.values():
                metric.distributed_available_fn = lambda: False
        return self

    def to(self, device: torch.device) -> None:
        """Reset the metrics, and move them to this device (to the CPU instead of MPS)."""
        device = _float64_device(device)
        for collection in self._collections:
            if device != self._device:
                collection.to(device)
            collection.reset()
        self._device = device


def normalise_rows(probabilities: Tensor) -> Tensor:
    """Return probabilities (N, C) with each row divided by its sum. A row of zeros becomes uniform."""
    tiny = torch.finfo(probabilities.dtype).tiny  # too small to change a probability
    return (probabilities + tiny) / (probabilities + tiny).sum(1, keepdim=True)


class _R2(R2Score):
    def __init__(self, targets: int) -> None:
        super().__init__()
        # torchmetrics takes the shape of these states from the first batch. On a rank without a batch, the shapes would
        # differ and the all-reduce would wait forever.
        for name in ("sum_squared_error", "sum_error", "residual"):
            self.add_state(name, torch.zeros(targets), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """Return R², or NaN for a single example, for which torchmetrics raises an error."""
        return super().compute() if self.total > 1 else torch.tensor(torch.nan)


def _make_metrics(spec: DataSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metrics of decisions or values, and the metrics of probabilities, each by name."""
    if spec.task is Task.REGRESSION:
        return {"mse": MeanSquaredError(), "mae": MeanAbsoluteError(), "r2": _R2(spec.targets)}, {}
    multiclass = spec.task is Task.MULTICLASS
    columns: dict[str, Any] = {"num_classes" if multiclass else "num_labels": spec.targets}
    kinds: dict[str, Any] = {"accuracy": Accuracy, "precision": Precision, "recall": Recall, "f1": F1Score}
    decisions: dict[str, Any] = {}
    for name, kind in kinds.items():
        average = "micro" if multiclass and name == "accuracy" else "macro"
        decisions[name] = kind(task=spec.task.value, average=average, validate_args=False, **columns)
    probabilities: dict[str, Any] = {"nll": NLL(), "brier": Brier()}
    return decisions, probabilities if spec.task is Task.MULTILABEL else {**probabilities, "ece": ECE()}
