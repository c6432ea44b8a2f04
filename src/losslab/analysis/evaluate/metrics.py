"""Metrics of a split that training does not log: per class, averaged, and as curves. scikit-learn computes them.

Metrics that training logs (accuracy, NLL, ...) are not computed again here, so that each has one value.
"""

from dataclasses import dataclass, field

import numpy as np
from sklearn import metrics as sk

from losslab.analysis.evaluate.predictions import Array, Predictions
from losslab.targets import Task

TOP = 5


def classification_report(predictions: Predictions) -> str:
    """scikit-learn's classification report, with 4 digits and the names of the classes."""
    present = _present_classes(predictions)
    names = [predictions.class_names[number] for number in present]
    options = {"labels": present, "target_names": names, "digits": 4, "zero_division": 0}
    text: str = sk.classification_report(*_columns(predictions), **options)
    return text


def class_metrics(predictions: Predictions) -> dict[str, dict[str, float]]:
    """The numbers of the report: precision, recall, f1 and support by class and by average."""
    present = _present_classes(predictions)
    names = ("precision", "recall", "f1", "support")
    columns, options = _columns(predictions), {"labels": present, "zero_division": 0}
    rows = zip(present, *sk.precision_recall_fscore_support(*columns, **options), strict=True)
    table = {predictions.class_names[k]: dict(zip(names, map(float, row), strict=True)) for k, *row in rows}
    for average in ("macro", "weighted"):
        values = sk.precision_recall_fscore_support(*columns, average=average, **options)[:3]
        table[f"{average} avg"] = dict(zip(names[:3], map(float, values), strict=True))
    return table


def confusion_matrix(predictions: Predictions) -> Array:
    """Counts by true class (rows) and predicted class (C, C); for labels TN, FP, FN and TP of each (K, 4)."""
    matrix: Array
    if predictions.spec.task is Task.MULTILABEL:
        matrix = sk.multilabel_confusion_matrix(predictions.truth, predictions.prediction).reshape(-1, 4)
    else:
        matrix = sk.confusion_matrix(*_columns(predictions), labels=range(len(predictions.class_names)))
    return matrix


def _present_classes(predictions: Predictions) -> list[int]:
    """The classes that occur among the truths or the predictions; all labels of a multilabel task."""
    if predictions.spec.task is Task.MULTILABEL:
        return list(range(predictions.spec.targets))
    return [int(number) for number in np.union1d(predictions.truth, predictions.prediction)]


def _columns(predictions: Predictions) -> tuple[Array, Array]:
    """Truth and prediction as scikit-learn takes them."""
    if predictions.spec.task is Task.BINARY:
        return predictions.truth[:, 0], predictions.prediction[:, 0]
    return predictions.truth, predictions.prediction


@dataclass(frozen=True)
class Curve:
    """A curve over all thresholds, of one class against the rest or of an average."""

    name: str
    x: Array
    y: Array
    area: float


@dataclass(frozen=True)
class Curves:
    """ROC curves (x: false-positive rate, y: true-positive rate) or PR curves (x: recall, y: precision) of a split."""

    kind: str
    """roc or pr."""
    each: list[Curve] = field(default_factory=list)
    """One for each class or label; in a binary task only for class 1."""
    averages: list[Curve] = field(default_factory=list)
    """micro and macro, if there are several classes."""
    missing: dict[str, str] = field(default_factory=dict)
    """Classes without a curve, with the reason."""

    @property
    def area_name(self) -> str:
        """The metric's name in measures.json."""
        return "roc_auc" if self.kind == "roc" else "average_precision"

    def areas(self) -> dict[str, float]:
        """The areas of the averages, or of the only curve, by metric name."""
        suffixes = {"micro": "/micro", "macro": ""}
        return {f"{self.area_name}{suffixes.get(each.name, '')}": each.area for each in self.averages or self.each}


def compute_curves(predictions: Predictions, kind: str) -> Curves:
    """The "roc" or "pr" curves of a classifier.

    The micro curve is that of all decisions (example, class) together, the macro curve the mean of the classes' curves
    at equal x. The macro area is the mean of the classes' areas, as in scikit-learn's roc_auc_score and
    average_precision_score.
    """
    assert predictions.probabilities is not None  # noqa: S101 -- for the type checker
    names, task = predictions.class_names, predictions.spec.task
    if task is Task.MULTICLASS:
        truth = predictions.truth[:, None] == np.arange(len(names))
    else:
        truth = predictions.truth == 1
        names = names[1:] if task is Task.BINARY else names
    curves = Curves(kind)
    for column, name in enumerate(names):
        positive = truth[:, column]
        if positive.all() or not positive.any():
            curves.missing[name] = f"{'every' if positive.all() else 'no'} example of this split is of it"
        else:
            curves.each.append(_curve(kind, name, positive, predictions.probabilities[:, column]))
    if len(names) > 1 and curves.each:
        curves.averages.append(_curve(kind, "micro", truth.ravel(), predictions.probabilities.ravel()))
        curves.averages.append(_macro(kind, curves.each))
    return curves


def _curve(kind: str, name: str, positive: Array, probability: Array) -> Curve:
    if kind == "roc":
        x, y, _ = sk.roc_curve(positive, probability)
        return Curve(name, x, y, float(sk.auc(x, y)))
    y, x, _ = sk.precision_recall_curve(positive, probability, drop_intermediate=True)
    return Curve(name, x, y, float(sk.average_precision_score(positive, probability)))


def _macro(kind: str, each: list[Curve]) -> Curve:
    grid = np.linspace(0, 1, 501)
    heights = []
    for curve in each:
        if kind == "roc":
            heights.append(np.interp(grid, curve.x, curve.y))
        else:  # a step function: the precision at the smallest sufficient recall
            recall, precision = curve.x[::-1], curve.y[::-1]
            heights.append(precision[np.searchsorted(recall, grid)])
    return Curve("macro", grid, np.mean(heights, axis=0), float(np.mean([curve.area for curve in each])))


def extra_metrics(predictions: Predictions) -> dict[str, float]:
    """Top-5 accuracy and Matthews' correlation of classes, or further errors of a regression."""
    task = predictions.spec.task
    extra: dict[str, float] = {}
    if task is Task.REGRESSION:
        error = predictions.prediction - predictions.truth
        extra["rmse"] = float(np.sqrt(np.mean(error**2)))
        extra["median_absolute_error"] = float(np.median(np.abs(error)))
        extra["max_error"] = float(np.abs(error).max())
        extra["bias"] = float(error.mean())
        if predictions.deviation is not None:
            extra["coverage95"] = float(np.mean(np.abs(error) <= 1.959964 * predictions.deviation))
        return extra
    if task is Task.MULTICLASS and predictions.spec.targets > TOP:
        labels = range(predictions.spec.targets)
        extra["top5"] = float(sk.top_k_accuracy_score(predictions.truth, predictions.scores, k=TOP, labels=labels))
    if task is not Task.MULTILABEL:
        extra["mcc"] = float(sk.matthews_corrcoef(*_columns(predictions)))
    return extra
