"""Calibration after training: a temperature, logit adjustment or decision thresholds, from logits and their truth.

Nothing here needs a run folder. Logits are (N, C) with classes (N,) as truth, or (N, K) with 0/1 labels (N, K); a
binary task has K = 1. All numbers are float64. `find_logits` converts the outputs of a network to logits,
`fit_calibration` fits a method to validation examples, and `calibrated_metrics` measures it on other examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, softmax
from torch import Tensor

from losslab.data.batch import DataSpec
from losslab.errors import LabError
from losslab.losses.base import Loss
from losslab.models.metrics import EvaluationMetrics, normalise_rows
from losslab.targets import Task

Floats: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]

METHODS = ("temperature", "logit_adjustment", "thresholds", "f1_thresholds")
"""The methods of `fit_calibration`. The thresholds maximise accuracy, and the f1_thresholds F1."""


@dataclass(frozen=True)
class Calibration:
    """A change of logits or decisions. This base class is the identity, which changes nothing."""

    def apply(self, logits: ArrayLike) -> Floats:
        """Return the calibrated logits, (N, C) or (N, K)."""
        return np.asarray(logits, dtype=np.float64)

    def probabilities(self, logits: ArrayLike, task: Task) -> Floats:
        """Return the calibrated probabilities: the softmax (N, C) of exclusive classes, or the sigmoid (N, K)."""
        calibrated = self.apply(logits)
        return np.asarray(softmax(calibrated, axis=1) if task is Task.MULTICLASS else expit(calibrated))

    def predict(self, logits: ArrayLike, task: Task) -> Labels:
        """Return the predicted classes (N,) or 0/1 labels (N, K) of uncalibrated logits."""
        if task is Task.MULTICLASS:
            return np.asarray(self.apply(logits).argmax(1), dtype=np.int64)
        return (self.probabilities(logits, task) > self.decision_thresholds).astype(np.int64)

    @property
    def decision_thresholds(self) -> Floats:
        """The probabilities, () or (K,), above which a label is predicted as 1."""
        return np.array(0.5)

    def describe(self, names: Sequence[str]) -> str:  # noqa: ARG002
        """Return the fitted numbers as text. `names` are those of the classes (C) or labels (K)."""
        return "identity"


@dataclass(frozen=True)
class TemperatureScaling(Calibration):
    """Logits divided by one temperature T > 0 (Guo et al., On calibration of modern neural networks, 2017).

    T > 1 makes a network less confident. The predicted class of each example stays the same.
    """

    temperature: float

    @classmethod
    def fit(cls, logits: ArrayLike, truth: ArrayLike) -> Self:
        """Fit the temperature that minimises the mean negative log-likelihood (NLL) of validation examples.

        The NLL is convex in 1/T, so its derivative has at most one root. Unlike the metric of the same name, it is not
        limited at probabilities of 1.2e-7.

        Raises:
            LabError: the arrays do not fit together, or the NLL has no minimum at a positive, finite T.
        """
        logits, truth = _check(logits, truth)
        if truth.ndim == 1:  # by how much each class exceeds the true class
            advantage = logits - np.take_along_axis(logits, truth[:, None], axis=1)
        else:  # the sigmoid is a softmax over the label and its opposite
            advantage = np.stack([np.zeros_like(logits), (1 - 2 * truth) * logits], axis=-1).reshape(-1, 2)
        scale = np.abs(advantage).max() or 1.0
        advantage = advantage / scale

        def slope(log_temperature: float) -> float:
            """Return the derivative of the NLL with respect to 1/T, at a temperature in units of `scale`."""
            weights = softmax(np.exp(-log_temperature) * advantage, axis=1)
            return float((weights * advantage).sum(1).mean())

        coldest, hottest = -40.0, 40.0
        if slope(hottest) >= 0:
            raise LabError(
                "no temperature fits: the logits of the validation examples are no better than chance, so the NLL is "
                "lowest at an infinite temperature: train longer, or choose other weights"
            )
        if slope(coldest) <= 0:
            raise LabError(
                f"no temperature fits: all predictions of the {len(logits):,} validation examples are correct, so the "
                "NLL falls as long as the temperature does: use more validation examples"
            )
        return cls(float(scale * np.exp(brentq(slope, coldest, hottest, xtol=1e-12))))

    def apply(self, logits: ArrayLike) -> Floats:
        """Return the logits divided by T."""
        return super().apply(logits) / self.temperature

    def describe(self, names: Sequence[str]) -> str:  # noqa: ARG002
        """Return T, and its effect."""
        return f"temperature {self.temperature:.4g} ({'less' if self.temperature > 1 else 'more'} confident)"


@dataclass(frozen=True)
class LogitAdjustment(Calibration):
    """Logits minus τ log π, where π is the class prior in training.

    This is the post-hoc form of Menon et al., Long-tail learning via logit adjustment, 2021. At τ = 1 the predicted
    class is that of highest probability if all classes were equally frequent. The logit of a 0/1 label is the
    difference of the logits of 1 and 0, so τ log(π/(1 - π)) is subtracted from it.
    """

    offsets: tuple[float, ...] = ()
    """What is subtracted from the logits, C or K numbers; empty if the prior is unknown: then nothing changes."""
    tau: float = 1.0
    exclusive: bool = True
    """Whether the offsets belong to exclusive classes, not to 0/1 labels."""

    @classmethod
    def fit(cls, class_counts: ArrayLike | None, tau: float = 1.0, *, examples: int | None = None) -> Self:
        """Compute the offsets from the class counts of the training split.

        A class without examples counts as the rarest. For a label that is always 0 or always 1 one example is changed.

        Args:
            class_counts: the number of examples of each class (C,), or of ones of each 0/1 label (K,); None if unknown.
            tau: the strength τ of the adjustment.
            examples: the number of training examples, if `class_counts` counts labels; None for exclusive classes.

        Raises:
            LabError: a count is negative or more than `examples`, or all classes have none.
        """
        exclusive = examples is None
        if class_counts is None:
            return cls((), tau, exclusive)
        counts = np.asarray(class_counts, dtype=np.float64)
        if counts.ndim != 1 or not ((counts >= 0) & (counts <= (examples or np.inf))).all():
            raise LabError(f"class counts must be numbers of training examples (C,): got {counts.tolist()}")
        if examples is not None:
            ones = np.clip(counts, 1, max(examples - 1, 1))
            logs = np.log(ones / np.maximum(examples - ones, 1))
        elif counts.any():
            logs = np.log(np.maximum(counts, counts[counts > 0].min()) / counts.sum())
        else:
            raise LabError("class counts must not all be 0: without training examples there is no class prior")
        return cls(tuple((tau * logs).tolist()), tau, exclusive)

    @property
    def changes_nothing(self) -> bool:
        """Whether all classes are equally frequent in training, or their frequencies are unknown."""
        return len({*self.offsets, *(() if self.exclusive else (0.0,))}) <= 1

    def apply(self, logits: ArrayLike) -> Floats:
        """Return the logits minus the offsets."""
        offsets: Floats = np.array(self.offsets or 0.0)
        return super().apply(logits) - offsets

    def describe(self, names: Sequence[str]) -> str:
        """Return the offsets, or why nothing changes."""
        if self.changes_nothing:
            reason = (
                "all classes are equally frequent in training" if self.offsets else "the class counts are not known"
            )
            return f"logit_adjustment changes nothing: {reason}"
        prior = "log π" if self.exclusive else "log(π/(1 - π))"
        factor = "" if self.tau == 1 else f"{self.tau:g} "
        return f"logits minus {factor}{prior}, π = frequency in training: {_list(names, self.offsets)}"


@dataclass(frozen=True)
class Thresholds(Calibration):
    """A threshold for each 0/1 label: the label is predicted as 1 if its probability is above. Logits do not change."""

    thresholds: tuple[float, ...]
    metric: str = "accuracy"

    @classmethod
    def fit(cls, logits: ArrayLike, truth: ArrayLike, metric: Literal["accuracy", "f1"] = "accuracy") -> Self:
        """Choose for each label the threshold with the highest accuracy, or the highest F1, of validation examples.

        The project's metrics are means over the labels, so the best threshold of each label is best for all. A
        threshold is in the middle between two neighbouring probabilities. It is 0.5 if no other is better; of several
        others that are equally good, it is the one closest to 0.5.

        Raises:
            LabError: the arrays do not fit together, or the truth are classes instead of labels.
        """
        logits, truth = _check(logits, truth)
        if truth.ndim == 1:
            raise LabError("thresholds need 0/1 labels (N, K), got exclusive classes: use temperature instead")
        probabilities = expit(logits)
        columns = zip(probabilities.T, truth.T, strict=True)
        return cls(tuple(_best_threshold(each, label, metric) for each, label in columns), metric)

    @property
    def decision_thresholds(self) -> Floats:
        """The thresholds (K,)."""
        return np.array(self.thresholds)

    def describe(self, names: Sequence[str]) -> str:
        """Return the thresholds."""
        return f"thresholds of highest {self.metric}: {_list(names, self.thresholds)}"


def _list(names: Sequence[str], numbers: Sequence[float]) -> str:
    """Return up to ten numbers with their names as text."""
    pairs = [f"{name}: {number:.4g}" for name, number in zip(names, numbers, strict=True)]
    return ", ".join(pairs[:10]) + (f" and {len(pairs) - 10} more" if len(pairs) > 10 else "")


def _best_threshold(probabilities: Floats, labels: Labels, metric: str) -> float:
    """Return the threshold for probabilities (N,) and 0/1 labels (N,) that `Thresholds.fit` describes."""
    order = np.argsort(probabilities)
    bounds = np.concatenate([[0.0], probabilities[order], [1.0]])
    # Candidate i predicts 0 for the i lowest probabilities. It is between bounds[i] (inclusive) and bounds[i + 1].
    false_negative = np.concatenate([[0], np.cumsum(labels[order])])
    true_positive = labels.sum() - false_negative
    wrong = false_negative + (len(labels) - np.arange(len(labels) + 1) - true_positive)
    denominator = 2 * true_positive + wrong
    f1 = np.divide(2 * true_positive, denominator, out=np.zeros(len(wrong)), where=denominator > 0)
    score = f1 if metric == "f1" else -wrong.astype(np.float64)
    low, high = bounds[:-1], bounds[1:]
    possible = low < high
    possible[-1] = True  # at a threshold of 1 no label is predicted, even if a probability is 1
    best = possible & (score == score[possible].max())
    if (best & (low <= 0.5) & (high > 0.5)).any():
        return 0.5
    middle = (low + high) / 2
    middle = np.where(middle < high, middle, low)  # between two neighbouring floats
    return float(min(middle[best], key=lambda threshold: abs(threshold - 0.5)))


def check_method(method: str, task: Task) -> None:
    """Raise LabError unless a method exists and fits the task."""
    if method not in METHODS:
        raise LabError(f"there is no calibration method {method!r}: choose {', '.join(METHODS)}")
    if task is Task.REGRESSION:
        raise LabError(f"{method} calibrates the probabilities of classes or labels, but these data are a regression")
    if method.endswith("thresholds") and task is Task.MULTICLASS:
        raise LabError(f"{method} are for binary and multilabel data, these have exclusive classes: use temperature")


def find_logits(loss: Loss, outputs: Tensor, task: Task) -> Floats:
    """Convert outputs of a network that was trained with `loss` to logits: (N, C) of a softmax, (N, K) of a sigmoid.

    Raises:
        LabError: under this loss, the outputs mean something else, such as values or one-vs-all labels.
    """
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    exclusive = task is Task.MULTICLASS
    with torch.no_grad():
        logits, meant = loss.to_logits(outputs), loss.to_probabilities(outputs)
        if logits is not None:  # the comparison is for a user's loss that overrides `to_probabilities` alone
            meant = normalise_rows(meant) if exclusive else meant
            found = torch.softmax(logits, dim=1) if exclusive else torch.sigmoid(logits)
            if found.shape == meant.shape and torch.allclose(found, meant, rtol=1e-4, atol=1e-5):
                return np.asarray(logits.cpu().numpy(), dtype=np.float64)
    name, link, others = getattr(loss, "name", type(loss).__name__), "sigmoid", "bce"
    if exclusive:
        link, others = "softmax", "cross_entropy or loss=focal"
    raise LabError(
        f"calibration changes the logits of a {link}, but the outputs under {name} are something else: choose a run "
        f"that was trained with a loss such as loss={others}"
    )


def fit_calibration(
    method: str,
    logits: ArrayLike,
    truth: ArrayLike,
    task: Task,
    *,
    class_counts: ArrayLike | None = None,
    examples: int | None = None,
) -> Calibration:
    """Fit a method of `METHODS` to the logits and the truth of validation examples.

    Logit adjustment does not use them. It needs the class counts of the training split, and for 0/1 labels the number
    of its examples (see `LogitAdjustment.fit`).

    Raises:
        LabError: the method does not exist or does not fit the task, or the arrays do not fit it.
    """
    check_method(method, task)
    if method == "temperature":
        return TemperatureScaling.fit(logits, truth)
    if method == "logit_adjustment":
        known = task is Task.MULTICLASS or examples is not None
        return LogitAdjustment.fit(class_counts if known else None, examples=examples if known else None)
    return Thresholds.fit(logits, truth, "f1" if method == "f1_thresholds" else "accuracy")


def calibrated_metrics(
    calibration: Calibration, logits: ArrayLike, truth: ArrayLike, spec: DataSpec
) -> dict[str, float]:
    """Return the metrics that training logs (accuracy, nll, ece, ...), of calibrated probabilities and decisions."""
    labels = torch.from_numpy(np.asarray(truth, dtype=np.int64 if spec.task is Task.MULTICLASS else np.float64))
    metrics = EvaluationMetrics(spec).without_sync()
    probabilities = torch.from_numpy(calibration.probabilities(logits, spec.task))
    if spec.task is Task.MULTICLASS:
        metrics.update(torch.from_numpy(calibration.apply(logits)), probabilities, labels)
    else:
        decisions = torch.from_numpy(calibration.predict(logits, spec.task)).double()
        metrics.update(decisions, probabilities, labels, decisions)
    return {name: value.item() for name, value in metrics.compute().items()}


def _check(logits: ArrayLike, truth: ArrayLike) -> tuple[Floats, Labels]:
    """Convert both arrays. Raise LabError unless they are finite, not empty, and of matching shapes."""
    values, labels = np.asarray(logits, dtype=np.float64), np.asarray(truth)
    expected = values.shape if labels.ndim > 1 else values.shape[:1]
    if values.ndim != 2 or labels.shape != expected or not values.size:
        raise LabError(
            "calibration needs logits (N, C) with classes (N,), or logits (N, K) with labels (N, K), of at least one "
            f"validation example: got {values.shape} with {labels.shape}"
        )
    if not np.isfinite(values).all():
        raise LabError("calibration needs finite logits: some are NaN or infinite")
    with np.errstate(invalid="ignore"):  # NaN
        whole = labels.astype(np.int64)
    if not ((whole == labels) & (whole >= 0) & (whole < (values.shape[1] if labels.ndim == 1 else 2))).all():
        raise LabError("calibration needs classes from 0 to C - 1, or labels that are 0 or 1, as truth")
    return values, whole
