"""Metrics that training does not log: scalars, metrics of each class, and curves. Most are those of scikit-learn.

Metrics that training logs (accuracy, NLL, ...) are not computed again, so that each metric has a single value.
"""

from dataclasses import dataclass, field

import numpy as np
from sklearn import metrics as sk

from losslab.analysis.evaluate.predictions import Array, Predictions
from losslab.targets import Task


def classification_report(predictions: Predictions) -> str:
    """Return scikit-learn's classification report as text, with class names and 4 decimal places."""
    present = _present_classes(predictions)
    names = [predictions.spec.names[number] for number in present]
    options = {"labels": present, "target_names": names, "digits": 4, "zero_division": 0}
    return str(sk.classification_report(*_columns(predictions), **options))


def class_metrics(predictions: Predictions) -> dict[str, dict[str, float]]:
    """Return precision, recall and f1 of each class and of each average (macro, weighted), and each class's support."""
    present = _present_classes(predictions)
    names = ("precision", "recall", "f1", "support")
    columns, options = _columns(predictions), {"labels": present, "zero_division": 0}
    rows = zip(present, *sk.precision_recall_fscore_support(*columns, **options), strict=True)
    table = {predictions.spec.names[k]: dict(zip(names, map(float, row), strict=True)) for k, *row in rows}
    for average in ("macro", "weighted"):
        values = sk.precision_recall_fscore_support(*columns, average=average, **options)[:3]
        table[f"{average} avg"] = dict(zip(names[:3], map(float, values), strict=True))
    return table


def confusion_matrix(predictions: Predictions) -> Array:
    """Count examples by true and predicted class (C, C), or for each label by TN, FP, FN and TP (K, 4)."""
    if predictions.spec.task is Task.MULTILABEL:
        return np.reshape(sk.multilabel_confusion_matrix(predictions.truth, predictions.prediction), (-1, 4))
    return np.asarray(sk.confusion_matrix(*_columns(predictions), labels=range(len(predictions.spec.names))))


def _present_classes(predictions: Predictions) -> list[int]:
    """Return the classes that are the truth or the prediction of an example; in a multilabel task, all labels."""
    if predictions.spec.task is Task.MULTILABEL:
        return list(range(predictions.spec.targets))
    return [int(number) for number in np.union1d(predictions.truth, predictions.prediction)]


def _columns(predictions: Predictions) -> tuple[Array, Array]:
    """Return truth and prediction in the shapes that scikit-learn expects."""
    if predictions.spec.task is Task.BINARY:
        return predictions.truth[:, 0], predictions.prediction[:, 0]
    return predictions.truth, predictions.prediction


@dataclass(frozen=True)
class Curve:
    """The ROC or PR curve of one class against all others, or of an average; for PR, the area is average precision."""

    name: str
    x: Array
    y: Array
    area: float


@dataclass(frozen=True)
class Curves:
    """ROC curves (x: false-positive rate, y: true-positive rate) or PR curves (x: recall, y: precision) of a split."""

    kind: str
    """"roc" or "pr"."""
    each: list[Curve] = field(default_factory=list)
    """The curve of each class or label; in a binary task, only the curve of class 1."""
    averages: list[Curve] = field(default_factory=list)
    """The curves "micro" and "macro", if there are several classes or labels."""
    missing: dict[str, str] = field(default_factory=dict)
    """By the name of each class or label without a curve, the reason."""

    @property
    def area_name(self) -> str:
        """Name of the area in measures.json."""
        return "roc_auc" if self.kind == "roc" else "average_precision"

    def areas(self) -> dict[str, float]:
        """Return the areas of the average curves, or of the only curve if there are no averages, by metric name."""
        names = {"micro": f"{self.area_name}/micro"}
        return {names.get(each.name, self.area_name): each.area for each in self.averages or self.each}


def compute_curves(predictions: Predictions, kind: str) -> Curves:
    """Compute the curves of a classifier: ROC curves if `kind` is "roc", PR curves if it is "pr".

    The micro curve treats each pair (example, class) as an example of a binary task. The macro curve is the mean of the
    class curves at the same x. Its area is the mean of their areas, as in scikit-learn's roc_auc_score and
    average_precision_score.
    """
    assert predictions.probabilities is not None  # noqa: S101 -- for the type checker
    names, task = predictions.spec.names, predictions.spec.task
    truth = predictions.truth[:, None] == np.arange(len(names)) if task is Task.MULTICLASS else predictions.truth == 1
    names = names[1:] if task is Task.BINARY else names
    curves = Curves(kind)
    for column, name in enumerate(names):
        positive = truth[:, column]
        if positive.all() or not positive.any():
            curves.missing[name] = f"{'every' if positive.all() else 'no'} example of this split is positive"
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
        else:  # a step function: the precision at the smallest recall that is at least x
            recall, precision = curve.x[::-1], curve.y[::-1]
            heights.append(precision[np.searchsorted(recall, grid)])
    return Curve("macro", grid, np.mean(heights, axis=0), float(np.mean([curve.area for curve in each])))


def scalar_metrics(predictions: Predictions) -> dict[str, float]:
    """Compute top-5 accuracy and Matthews' correlation of a classifier, or errors and coverage of a regression."""
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
    if task is Task.MULTICLASS and predictions.spec.targets > 5:
        labels = range(predictions.spec.targets)
        extra["top5"] = float(sk.top_k_accuracy_score(predictions.truth, predictions.scores, k=5, labels=labels))
    if task is not Task.MULTILABEL:
        extra["mcc"] = float(sk.matthews_corrcoef(*_columns(predictions)))
    return extra
