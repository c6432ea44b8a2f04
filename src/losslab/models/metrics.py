"""The yardsticks: metrics that mean the same whatever the loss, over examples and not over batches.

Sums are float64, so that neither batches nor processes can be told from a value.
"""

from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryF1Score,
    BinaryPrecision,
    BinaryRecall,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MultilabelAccuracy,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
)
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score

from losslab.data.batch import DataSpec
from losslab.io.metric_names import direction
from losslab.targets import Task

MONITOR = {Task.REGRESSION: "mse", Task.BINARY: "accuracy", Task.MULTICLASS: "accuracy", Task.MULTILABEL: "accuracy"}
"""The metric by which a task's runs are checkpointed, stopped, tuned and compared. Never the loss."""


def monitor_mode(task: Task) -> str:
    """Whether the monitored metric of this task is better "min" or "max"."""
    return direction(MONITOR[task])


def to_float64(values: Tensor) -> Tensor:
    """Values where float64 can be had, which is on the CPU for MPS; floating ones as float64."""
    values = values.cpu() if values.device.type == "mps" else values
    return values.double() if values.is_floating_point() else values


class RunningMean:
    """A mean over examples: float64 sums of values and of weights, added up over batches and processes.

    What `Average` is, without the tenth of a millisecond a step that a Metric takes for what it could also do.
    """

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.reset()

    def to(self, device: torch.device) -> None:
        """Start over on the device of the outputs (the CPU for MPS, which has no float64)."""
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.reset()

    def reset(self) -> None:
        """Start over."""
        self.total = torch.zeros((), dtype=torch.float64, device=self.device)
        self.weight = torch.zeros((), dtype=torch.float64, device=self.device)

    def update(self, total: Tensor, weight: Tensor | float) -> None:
        """Add a batch: the sum of its values () and the sum of their weights () or the number of its examples."""
        self.total += total.detach().to(self.device)
        self.weight += weight.detach().to(self.device) if isinstance(weight, Tensor) else weight

    @property
    def sums(self) -> Tensor:
        """Σ values and Σ weights of this process so far → (2,)."""
        return torch.stack([self.total, self.weight])

    @sums.setter
    def sums(self, sums: Tensor) -> None:
        self.total, self.weight = sums.to(self.device).clone()

    def compute(self) -> Tensor:
        """Σ values / Σ weights over all processes → ()."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            sums = self.sums
            torch.distributed.all_reduce(sums)
            return sums[0] / sums[1]
        return self.total / self.weight


class Average(Metric):
    """The same as a Metric, to stand in a collection beside others."""

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, total: Tensor, weight: Tensor | float) -> None:
        """Add a batch: the sum of its values () and the sum of their weights () or the number of its examples."""
        self.total += to_float64(total.detach())
        self.weight += weight if isinstance(weight, int | float) else to_float64(weight.detach())

    def compute(self) -> Tensor:
        """Σ values / Σ weights → ()."""
        return self.total / self.weight


class NLL(Average):
    """Negative log-likelihood of the truth in nats, -log p_y; for labels, summed over the columns.

    Probabilities are kept at or above 1.2e-7, the floor that scikit-learn's log_loss has for float32.
    """

    def update(self, probabilities: Tensor, truth: Tensor) -> None:  # type: ignore[override]
        """(N, C) and y (N,), or (N, K) and 0/1 (N, K)."""
        tiny = torch.finfo(torch.float32).eps
        if truth.is_floating_point():
            given = torch.where(truth > 0.5, probabilities, 1 - probabilities)
        else:
            given = probabilities.gather(1, truth[:, None])
        super().update(-given.clamp(min=tiny).log().sum(), len(truth))


class Brier(Average):
    """Brier score Σ_k (p_k - t_k)²: 0 to 2 for exclusive classes (Brier 1950), 0 to 1 for one label."""

    def update(self, probabilities: Tensor, truth: Tensor) -> None:  # type: ignore[override]
        """(N, C) and y (N,), or (N, K) and 0/1 (N, K)."""
        if truth.is_floating_point():
            super().update((probabilities - truth).square().sum(), len(truth))
        else:
            given = probabilities.gather(1, truth[:, None]).squeeze(1)
            # Σ_k (p_k - t_k)² without spelling t out: Σ p² - 2 p_y + 1.
            super().update((probabilities.square().sum(1) - 2 * given + 1).sum(), len(truth))


class ECE(Metric):
    """Expected calibration error Σ_b n_b/N |accuracy_b - confidence_b| over equal bins (Guo et al. 2017).

    For exclusive classes the confidence is the largest probability, and accuracy means that its class is right; for
    one label it is the probability of 1, and accuracy means how often that was the truth.
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
        """(N, C) and y (N,), or (N, 1) and 0/1 (N, 1)."""
        if probabilities.shape == truth.shape:
            confidence, correct = probabilities.flatten(), truth.flatten()
        else:
            confidence, guess = probabilities.max(1)
            correct = guess == truth
        edges = torch.linspace(0, 1, len(self.count) + 1, dtype=confidence.dtype, device=confidence.device)
        bins = torch.bucketize(confidence, edges[1:-1], right=True)
        self.count.index_add_(0, bins, torch.ones_like(confidence))
        self.confidence.index_add_(0, bins, confidence)
        self.correct.index_add_(0, bins, correct.to(confidence.dtype))

    def compute(self) -> Tensor:
        """() in [0, 1]."""
        return (self.correct - self.confidence).abs().sum() / self.count.sum()


class EvaluationMetrics:
    """All metrics of one split, but for the loss itself. Not a module: it keeps float64 where it can be had."""

    def __init__(self, facts: DataSpec) -> None:
        self.task = facts.task
        decisions, likelihoods = _collections(facts)
        for metric in (*decisions.values(), *likelihoods.values()):
            metric.set_dtype(torch.float64)
        self.decisions = MetricCollection(decisions)
        # Without torchmetrics' groups: it would take NLL and Brier, whose sums have the same names, for one metric if
        # they are equal on the first batch, as they are (0) where that batch is certain and right.
        self.likelihoods = MetricCollection(likelihoods, compute_groups=False) if likelihoods else None

    @property
    def names(self) -> list[str]:
        """What `compute` will name, in order."""
        return [*self.decisions, *(self.likelihoods or ())]

    def update(self, outputs: Tensor, probabilities: Tensor | None, truth: Tensor) -> None:
        """Add a batch: raw outputs, what they mean as probabilities (None for regression), and the truth."""
        if len(truth) == 0:
            return  # this process's share of a small batch, which torchmetrics would not take
        outputs, truth = to_float64(outputs), to_float64(truth)
        if self.likelihoods is None or probabilities is None:
            self.decisions.update(outputs, truth)
            return
        probabilities = to_float64(probabilities)
        if self.task is Task.MULTICLASS:
            # One-vs-all and squared-error outputs need not sum to 1, but exclusive classes' probabilities do.
            self.decisions.update(outputs.argmax(1), truth)
            self.likelihoods.update(normalise_rows(probabilities), truth)
        else:
            probabilities = probabilities.clamp(max=1)
            labels = truth.long()
            self.decisions.update(probabilities, labels)
            self.likelihoods.update(probabilities, truth)

    def compute(self) -> dict[str, Tensor]:
        """The value of each metric over all examples of all processes → () each."""
        return {**self.decisions.compute(), **(self.likelihoods.compute() if self.likelihoods else {})}

    def alone(self) -> Self:
        """Have `compute` speak of the examples that this process was shown, and of no other's."""
        for metric in (*self.decisions.values(), *(self.likelihoods.values() if self.likelihoods else ())):
            metric.distributed_available_fn = lambda: False
        return self

    def reset(self) -> None:
        """Start over."""
        self.decisions.reset()
        if self.likelihoods:
            self.likelihoods.reset()

    def to(self, device: torch.device) -> None:
        """Move the sums to the device of the outputs (the CPU for MPS)."""
        device = torch.device("cpu") if device.type == "mps" else device
        self.decisions.to(device)
        if self.likelihoods:
            self.likelihoods.to(device)


def normalise_rows(probabilities: Tensor) -> Tensor:
    """Probabilities (N, C) of exclusive classes, each row summing to 1."""
    # The least positive number changes no probability, and makes a row of zeros uniform instead of 0/0.
    tiny = torch.finfo(probabilities.dtype).tiny
    return (probabilities + tiny) / (probabilities + tiny).sum(1, keepdim=True)


class _R2(R2Score):
    def __init__(self, targets: int) -> None:
        super().__init__()
        # In torchmetrics they get this shape from the first batch, and a process that has none would wait forever for
        # the others' sums of another shape.
        for name in ("sum_squared_error", "sum_error", "residual"):
            self.add_state(name, torch.zeros(targets), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """NaN for a single example, where torchmetrics raises: it has no variance to explain."""
        return super().compute() if self.total > 1 else torch.tensor(torch.nan)


def _collections(facts: DataSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    options: dict[str, Any] = {"validate_args": False}
    if facts.task is Task.REGRESSION:
        return {"mse": MeanSquaredError(), "mae": MeanAbsoluteError(), "r2": _R2(facts.targets)}, {}
    if facts.task is Task.MULTICLASS:
        classes, macro = facts.targets, {"average": "macro", **options}
        return {
            "accuracy": MulticlassAccuracy(classes, average="micro", **options),
            "precision": MulticlassPrecision(classes, **macro),
            "recall": MulticlassRecall(classes, **macro),
            "f1": MulticlassF1Score(classes, **macro),
        }, {"nll": NLL(), "brier": Brier(), "ece": ECE()}
    if facts.task is Task.BINARY:
        return {
            "accuracy": BinaryAccuracy(**options),
            "precision": BinaryPrecision(**options),
            "recall": BinaryRecall(**options),
            "f1": BinaryF1Score(**options),
        }, {"nll": NLL(), "brier": Brier(), "ece": ECE()}
    labels = facts.targets
    return {
        "accuracy": MultilabelAccuracy(labels, **options),
        "precision": MultilabelPrecision(labels, **options),
        "recall": MultilabelRecall(labels, **options),
        "f1": MultilabelF1Score(labels, **options),
    }, {"nll": NLL(), "brier": Brier()}
