"""Figures of a split beside the yardsticks: of each class, averaged, and as curves. scikit-learn computes them.

The yardsticks (accuracy, NLL, ...) are not computed again here: one number has one value.
"""

from dataclasses import dataclass, field

import numpy as np
from sklearn import metrics as sk

from losslab.analysis.evaluate.predictions import Answers, Array
from losslab.data.batch import DataSpec
from losslab.targets import Task

TOP = 5


def class_names(facts: DataSpec) -> list[str]:
    """The names of classes or labels, two of a binary task; their numbers where the data do not name them."""
    given = facts.class_names
    count = 2 if facts.task is Task.BINARY else facts.targets
    return list(given) if len(given) == count else [str(number) for number in range(count)]


def names(answers: Answers) -> list[str]:
    """The same of the data that were answered."""
    return class_names(answers.facts)


def present(answers: Answers) -> list[int]:
    """The classes that occur in the split or among the decisions, of which a report speaks; of labels, all."""
    if answers.facts.task is Task.MULTILABEL:
        return list(range(answers.facts.targets))
    return [int(number) for number in np.union1d(answers.truth, answers.prediction)]


def report(answers: Answers) -> str:
    """scikit-learn's classification report, with 4 digits and the names of the classes."""
    labels, named = present(answers), names(answers)
    truth, prediction = _columns(answers)
    text: str = sk.classification_report(
        truth,
        prediction,
        labels=labels,
        target_names=[named[number] for number in labels],
        digits=4,
        zero_division=0,
    )
    return text


def of_classes(answers: Answers) -> dict[str, dict[str, float]]:
    """What the report says, as numbers: precision, recall, f1 and support by class and by average."""
    labels, named = present(answers), names(answers)
    truth, prediction = _columns(answers)
    scores = ("precision", "recall", "f1", "support")
    options = {"labels": labels, "zero_division": 0}
    each = sk.precision_recall_fscore_support(truth, prediction, **options)
    table = {named[k]: dict(zip(scores, map(float, row), strict=True)) for k, *row in zip(labels, *each, strict=True)}
    for average in ("macro", "weighted"):
        values = sk.precision_recall_fscore_support(truth, prediction, average=average, **options)[:3]
        table[f"{average} avg"] = dict(zip(scores[:3], map(float, values), strict=True))
    return table


def confusion(answers: Answers) -> Array:
    """How often each class was taken for each, truth by row (C, C); of labels (K, 4): TN, FP, FN, TP."""
    matrix: Array
    if answers.facts.task is Task.MULTILABEL:
        matrix = sk.multilabel_confusion_matrix(answers.truth, answers.prediction).reshape(-1, 4)
    else:
        matrix = sk.confusion_matrix(*_columns(answers), labels=range(len(names(answers))))
    return matrix


def _columns(answers: Answers) -> tuple[Array, Array]:
    if answers.facts.task is Task.BINARY:
        return answers.truth[:, 0], answers.prediction[:, 0]
    return answers.truth, answers.prediction


@dataclass(frozen=True)
class Curve:
    """One against the rest, at every threshold."""

    name: str
    x: Array
    y: Array
    area: float


@dataclass(frozen=True)
class Curves:
    """ROC (x: false-positive rate, y: true-positive rate) or PR (x: recall, y: precision) curves of a split."""

    kind: str
    """roc or pr."""
    each: list[Curve] = field(default_factory=list)
    """Of each class or label; of a binary task the one of class 1."""
    averages: list[Curve] = field(default_factory=list)
    """micro and macro, where there are several and none is missing from micro's sum."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why there is no curve of a class."""


def curves(answers: Answers, kind: str) -> Curves:
    """The curves of a classifier.

    The micro curve is that of all decisions (example, class) together, the macro curve the mean of the classes'
    curves at equal x. The macro area is the mean of the classes' areas, as scikit-learn's roc_auc_score and
    average_precision_score define it.
    """
    assert answers.probabilities is not None  # noqa: S101 -- for the type checker
    named = names(answers)
    if answers.facts.task is Task.MULTICLASS:
        truth = answers.truth[:, None] == np.arange(len(named))
    else:
        truth = answers.truth == 1
        named = named[1:] if answers.facts.task is Task.BINARY else named
    found = Curves(kind)
    for k, name in enumerate(named):
        right = truth[:, k]
        if right.all() or not right.any():
            found.missing[name] = f"{'every' if right.all() else 'no'} example of this split is of it"
        else:
            found.each.append(_curve(kind, name, right, answers.probabilities[:, k]))
    if len(named) > 1 and found.each:
        found.averages.append(_curve(kind, "micro", truth.ravel(), answers.probabilities.ravel()))
        found.averages.append(_macro(kind, found.each))
    return found


def _curve(kind: str, name: str, right: Array, probability: Array) -> Curve:
    if kind == "roc":
        x, y, _ = sk.roc_curve(right, probability)
        return Curve(name, x, y, float(sk.auc(x, y)))
    y, x, _ = sk.precision_recall_curve(right, probability, drop_intermediate=True)
    return Curve(name, x, y, float(sk.average_precision_score(right, probability)))


def _macro(kind: str, each: list[Curve]) -> Curve:
    grid = np.linspace(0, 1, 501)
    heights = []
    for curve in each:
        if kind == "roc":
            heights.append(np.interp(grid, curve.x, curve.y))
        else:  # steps, from high recall to low: the precision at the least recall that is enough
            recall, precision = curve.x[::-1], curve.y[::-1]
            heights.append(precision[np.searchsorted(recall, grid)])
    return Curve("macro", grid, np.mean(heights, axis=0), float(np.mean([curve.area for curve in each])))


def more(answers: Answers) -> dict[str, float]:
    """Numbers that are no yardsticks: top-5 accuracy and Matthews' coefficient, or further errors of values."""
    if answers.facts.task is Task.REGRESSION:
        return _of_values(answers)
    found: dict[str, float] = {}
    if answers.facts.task is Task.MULTICLASS and answers.facts.targets > TOP:
        found["top5"] = float(
            sk.top_k_accuracy_score(answers.truth, answers.scores, k=TOP, labels=range(answers.facts.targets))
        )
    if answers.facts.task is not Task.MULTILABEL:
        found["mcc"] = float(sk.matthews_corrcoef(*_columns(answers)))
    return found


def _of_values(answers: Answers) -> dict[str, float]:
    error = answers.prediction - answers.truth
    found = {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "median_absolute_error": float(np.median(np.abs(error))),
        "max_error": float(np.abs(error).max()),
        "bias": float(error.mean()),
    }
    if answers.deviation is not None:
        found["coverage95"] = float(np.mean(np.abs(error) <= 1.959964 * answers.deviation))
    return found
