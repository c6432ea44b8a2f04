"""Temperatures, logit adjustment and thresholds: known optima, brute force, and arrays that are refused."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from sklearn import metrics as sk
from torch import nn

from losslab import losses
from losslab.analysis.evaluate.calibration import (
    METHODS,
    Calibration,
    LogitAdjustment,
    TemperatureScaling,
    Thresholds,
    _best_threshold,
    calibrated_metrics,
    check_method,
    find_logits,
    fit_calibration,
)
from losslab.cli import evaluate as command
from losslab.data.batch import DataSpec
from losslab.errors import LabError
from losslab.losses.adapter.adapted import adapt
from losslab.targets import Kind, Task

CLASSES = DataSpec(Task.MULTICLASS, Kind.INDEX, (1,), 4)
LABELS = DataSpec(Task.MULTILABEL, Kind.BINARY, (1,), 2)


def examples(seed: int, scale: float = 3.0, count: int = 60, columns: int = 4):
    """Return random logits (N, C), and classes (N,) that these predict better than chance."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, columns))
    noise = random.gumbel(size=logits.shape)
    return scale * logits, (logits + noise).argmax(1)


def labelled(seed: int, count: int = 40, columns: int = 2, digits: int = 1):
    """Return random logits (N, K), many of them equal, and 0/1 labels (N, K)."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, columns)).round(digits)
    return logits, (logits + random.logistic(size=logits.shape) > 0.7).astype(int)


def nll(logits, truth) -> float:
    """Return the mean negative log-likelihood, which is not limited at small probabilities."""
    if truth.ndim == 1:
        return -log_softmax(logits, axis=1)[np.arange(len(truth)), truth].mean()
    return np.logaddexp(0, np.where(truth == 1, -logits, logits)).sum(1).mean()


@pytest.mark.parametrize("temperature", [0.02, 0.5, 1.0, 3.7, 400.0])
def test_temperature_of_classes_is_recovered_exactly(temperature):
    counts = np.array([[5, 2, 1], [1, 7, 4], [3, 3, 9]])  # how often each class is the truth at each row of logits
    rows = np.log(counts)  # their softmax is exactly the share of each class
    truth = np.concatenate([np.repeat([0, 1, 2], each) for each in counts])
    logits = np.repeat(rows, counts.sum(1), axis=0)
    fitted = TemperatureScaling.fit(temperature * logits + 5, truth)
    assert fitted.temperature == pytest.approx(temperature, rel=1e-9)


@pytest.mark.parametrize("temperature", [0.02, 0.5, 1.0, 3.7, 400.0])
def test_temperature_of_labels_is_recovered_exactly(temperature):
    ones, zeros = np.array([5, 2, 1, 7]), np.array([1, 3, 6, 7])
    truth = np.concatenate([np.repeat([1, 0], pair) for pair in zip(ones, zeros, strict=True)])
    logits = np.repeat(np.log(ones / zeros), ones + zeros)
    both = np.stack([logits, -logits], axis=1)
    fitted = TemperatureScaling.fit(temperature * both, np.stack([truth, 1 - truth], axis=1))
    assert fitted.temperature == pytest.approx(temperature, rel=1e-9)
    assert TemperatureScaling.fit(temperature * logits[:, None], truth[:, None]) == pytest.approx(fitted)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1e4])
def test_temperature_minimises_the_nll_and_changes_no_prediction(scale):
    for seed in range(10):
        logits, truth = examples(seed, scale)
        fitted = TemperatureScaling.fit(logits, truth)
        reached = nll(fitted.apply(logits), truth)
        found = minimize_scalar(lambda log, z=logits, y=truth: nll(z / np.exp(log), y), bounds=(-8, 14))
        assert reached <= nll(logits, truth)
        assert reached <= found.fun + 1e-12
        assert (fitted.predict(logits, Task.MULTICLASS) == logits.argmax(1)).all()


def test_temperature_keeps_the_decisions_on_labels():
    logits, truth = labelled(0)
    fitted = TemperatureScaling.fit(5 * logits, truth)
    assert fitted.temperature > 1.5
    assert (fitted.predict(logits, Task.MULTILABEL) == (logits > 0)).all()
    assert nll(fitted.apply(5 * logits), truth) < nll(5 * logits, truth)


def test_logits_without_a_best_temperature_are_refused():
    logits, truth = examples(0)
    best = logits.argmax(1)
    with pytest.raises(LabError, match="all predictions of the 60 validation examples are correct"):
        TemperatureScaling.fit(logits, best)
    with pytest.raises(LabError, match="are correct"):
        TemperatureScaling.fit(logits, (logits > 0).astype(int))
    for useless in (-logits, np.zeros_like(logits)):
        with pytest.raises(LabError, match="no better than chance"):
            TemperatureScaling.fit(useless, best)
    assert TemperatureScaling.fit(logits, truth).temperature > 0


def test_logit_adjustment_is_its_closed_form():
    logits, _ = examples(1)
    counts = np.array([500, 50, 5, 0])
    prior = np.array([500, 50, 5, 5]) / 555  # a class without examples counts as the rarest
    for tau in (0.5, 1.0):
        fitted = LogitAdjustment.fit(counts, tau)
        np.testing.assert_allclose(fitted.apply(logits), logits - tau * np.log(prior), rtol=1e-12)
    expected = softmax(logits, axis=1) / prior
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(
        fit_calibration("logit_adjustment", logits, [], Task.MULTICLASS, class_counts=counts).probabilities(
            logits, Task.MULTICLASS
        ),
        expected,
    )


def test_logit_adjustment_of_a_label_is_that_of_its_two_classes():
    logits, _ = labelled(1, columns=1)
    label = LogitAdjustment.fit([30], examples=100).probabilities(logits, Task.BINARY)
    pair = np.concatenate([np.zeros_like(logits), logits], axis=1)
    classes = LogitAdjustment.fit([70, 30]).probabilities(pair, Task.MULTICLASS)
    np.testing.assert_allclose(label[:, 0], classes[:, 1])
    assert np.isfinite(LogitAdjustment.fit([0, 100], examples=100).offsets).all()


@pytest.mark.parametrize(
    ("task", "counts", "size", "reason"),
    [
        (Task.MULTICLASS, None, None, "the class counts are not known"),
        (Task.MULTICLASS, [7, 7, 7, 7], None, "equally frequent"),
        (Task.MULTILABEL, [50, 50, 50, 50], 100, "equally frequent"),
        (Task.MULTILABEL, [30, 30, 30, 30], None, "the class counts are not known"),
    ],
)
def test_logit_adjustment_says_that_it_changes_nothing(task, counts, size, reason):
    logits, _ = examples(2)
    fitted = fit_calibration("logit_adjustment", logits, [], task, class_counts=counts, examples=size)
    assert fitted.changes_nothing
    assert f"changes nothing: {'all classes are ' * (reason[0] == 'e')}{reason}" in fitted.describe("abcd")
    np.testing.assert_allclose(fitted.probabilities(logits, task), Calibration().probabilities(logits, task))


@pytest.mark.parametrize(("counts", "size"), [([30], 100), ([30, 30], 100), ([50, 30], 100), ([7, 6], None)])
def test_logit_adjustment_of_unequal_classes_changes_something(counts, size):
    assert not LogitAdjustment.fit(counts, examples=size).changes_nothing


@pytest.mark.parametrize("method", ["thresholds", "f1_thresholds"])
def test_thresholds_are_the_best_of_all_by_the_metrics_of_the_project(method):
    metric = "f1" if method == "f1_thresholds" else "accuracy"
    for seed in range(3):
        logits, truth = labelled(seed, count=12)
        fitted = fit_calibration(method, logits, truth, Task.MULTILABEL)
        for column, chosen in enumerate(fitted.thresholds):
            scores = {}
            for threshold in (0.5, *steps(expit(logits[:, column]))):
                tried = [*fitted.thresholds]
                tried[column] = threshold
                scores[threshold] = calibrated_metrics(Thresholds(tuple(tried)), logits, truth, LABELS)[metric]
            best = [threshold for threshold, score in scores.items() if score == max(scores.values())]
            assert chosen == pytest.approx(min(best, key=lambda threshold: abs(threshold - 0.5)), abs=1e-12)


def steps(probabilities):
    """Return a threshold below all probabilities, one between each two neighbours, and one above all."""
    edges = np.concatenate([[0], np.unique(probabilities), [1]])
    return (edges[1:] + edges[:-1]) / 2


@pytest.mark.parametrize(
    ("probabilities", "labels", "metric", "expected"),
    [
        ([0.1, 0.9], [0, 1], "accuracy", 0.5),  # any threshold between is best
        ([0.1, 0.3], [0, 1], "accuracy", 0.2),
        ([0.1, 0.3, 0.45, 0.9], [0, 1, 0, 1], "accuracy", 0.5),  # 0.2 and 0.5 are equally good
        ([0.2, 0.3, 0.35, 0.4], [0, 1, 0, 1], "accuracy", 0.375),  # 0.25 and 0.375 are equally good
        ([0.7, 0.8], [0, 0], "accuracy", 0.9),  # no label
        ([0.1, 0.2], [1, 1], "accuracy", 0.05),  # always the label
        ([0.2, 0.3], [0, 0], "f1", 0.5),  # F1 is 0 at every threshold
        ([0.2, 0.2, 0.3], [0, 1, 1], "f1", 0.1),
    ],
)
def test_thresholds_are_between_probabilities_and_close_to_a_half(probabilities, labels, metric, expected):
    p = np.array(probabilities)[:, None]
    fitted = Thresholds.fit(np.log(p / (1 - p)), np.array(labels)[:, None], metric)
    assert fitted.thresholds == pytest.approx((expected,), abs=1e-12)


def test_saturated_probabilities_have_thresholds():
    for logit, label, decision in ((800.0, 0, 0), (800.0, 1, 1), (-800.0, 0, 0)):
        logits = np.full((3, 1), logit)
        fitted = Thresholds.fit(logits, np.full((3, 1), label))
        assert fitted.predict(logits, Task.BINARY).tolist() == [[decision]] * 3


def test_thresholds_separate_neighbouring_floats():
    for low in np.random.default_rng(0).uniform(0.5, 1, 20):
        high = np.nextafter(low, 1)
        threshold = _best_threshold(np.array([low, high]), np.array([0, 1]), "accuracy")
        assert low <= threshold < high


def test_identity_has_the_metrics_of_scikit_learn():
    logits, truth = examples(3)
    found = calibrated_metrics(Calibration(), logits, truth, CLASSES)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, logits.argmax(1)))
    assert found["nll"] == pytest.approx(sk.log_loss(truth, softmax(logits, axis=1)), rel=1e-9)
    logits, truth = labelled(3)
    decisions = expit(logits) > 0.8
    found = calibrated_metrics(Thresholds((0.8, 0.8)), logits, truth, LABELS)
    assert found["f1"] == pytest.approx(sk.f1_score(truth, decisions, average="macro", zero_division=0), abs=1e-6)
    assert found["nll"] == calibrated_metrics(Calibration(), logits, truth, LABELS)["nll"]


@pytest.mark.parametrize(
    ("logits", "truth", "message"),
    [
        (np.zeros((3, 2)), [0, 1], r"got \(3, 2\) with \(2,\)"),
        (np.zeros(3), [0, 1, 0], r"got \(3,\) with \(3,\)"),
        (np.zeros((0, 2)), [], "at least one validation example"),
        (np.zeros((2, 2)), [[0, 1, 1], [0, 1, 0]], r"got \(2, 2\) with \(2, 3\)"),
        ([[0, np.nan], [1, 0]], [0, 1], "some are NaN or infinite"),
        (np.zeros((2, 2)), [0, 2], "classes from 0 to C - 1"),
        (np.zeros((2, 2)), [0, -100], "classes from 0 to C - 1"),
        (np.zeros((2, 1)), [[0.5], [1]], "labels that are 0 or 1"),
        (np.zeros((2, 1)), [[np.nan], [1]], "labels that are 0 or 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(logits, truth, message):
    with pytest.raises(LabError, match=message) as error:
        TemperatureScaling.fit(logits, truth)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("counts", "size"), [([3, -1], None), ([3, 101], 100), ([0, 0], None), ([[1, 2]], None)])
def test_impossible_class_counts_are_refused(counts, size):
    with pytest.raises(LabError, match=r"^class counts must"):
        LogitAdjustment.fit(counts, examples=size)


@pytest.mark.parametrize(
    ("method", "task", "message"),
    [
        ("platt", Task.BINARY, "choose temperature, logit_adjustment, thresholds, f1_thresholds"),
        ("temperature", Task.REGRESSION, "these data are a regression"),
        ("thresholds", Task.MULTICLASS, "these have exclusive classes: use temperature"),
        ("f1_thresholds", Task.MULTICLASS, "these have exclusive classes: use temperature"),
    ],
)
def test_methods_that_do_not_fit_the_task_are_refused(method, task, message):
    with pytest.raises(LabError, match=message):
        check_method(method, task)
    with pytest.raises(LabError, match=message):
        fit_calibration(method, np.zeros((2, 2)), [0, 1], task)


def test_thresholds_of_classes_are_refused():
    with pytest.raises(LabError, match="got exclusive classes: use temperature"):
        Thresholds.fit(*examples(0))


def test_the_command_offers_all_methods():
    assert command._METHODS == METHODS


class OwnProbabilities(losses.CrossEntropy):
    """A user's loss that overrides `to_probabilities` alone."""

    def to_probabilities(self, outputs):
        return torch.softmax(2 * outputs, dim=1)


OUTPUTS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (losses.CrossEntropy(), OUTPUTS),
        (losses.Focal(), OUTPUTS),
        (losses.Smoothed(losses.CrossEntropy()), OUTPUTS),
        (losses.CosineSoftmax(temperature=0.5), 2 * OUTPUTS),
        (losses.WeightedSum({"a": {"loss": losses.LDAM(s=3.0)}}), 3 * OUTPUTS),
        (adapt(nn.CrossEntropyLoss(), Kind.INDEX, 4), OUTPUTS),
        (adapt(nn.NLLLoss(), Kind.INDEX, 4), OUTPUTS),
    ],
)
def test_logits_of_a_softmax_are_found(loss, expected):
    outputs = OUTPUTS.log_softmax(1) if "NLL" in getattr(loss, "name", "") else OUTPUTS
    found = find_logits(loss, outputs.half() if outputs is OUTPUTS else outputs, Task.MULTICLASS)
    assert found.dtype == np.float64
    np.testing.assert_allclose(softmax(found, axis=1), expected.softmax(1), rtol=1e-2)


def test_logits_of_a_sigmoid_are_found():
    np.testing.assert_array_equal(find_logits(losses.BCE(), OUTPUTS, Task.MULTILABEL), OUTPUTS.numpy())
    found = find_logits(losses.PriorSigmoid(), OUTPUTS, Task.MULTILABEL)
    np.testing.assert_allclose(found, OUTPUTS.numpy() - np.log(4), rtol=1e-6)
    adapted = adapt(nn.BCEWithLogitsLoss(), Kind.BINARY, 4)
    np.testing.assert_array_equal(find_logits(adapted, OUTPUTS, Task.MULTILABEL), OUTPUTS.numpy())


@pytest.mark.parametrize(
    ("loss", "task", "name"),
    [
        (losses.MSE(), Task.MULTICLASS, "MSE"),
        (losses.RescaledMSE(), Task.MULTICLASS, "RescaledMSE"),
        (losses.BiTempered(), Task.MULTICLASS, "BiTempered"),
        (losses.BCE(), Task.MULTICLASS, "BCE"),
        (losses.SquaredHinge(), Task.BINARY, "SquaredHinge"),
        (losses.MSE(), Task.MULTILABEL, "MSE"),
        (losses.Smoothed(losses.BiTempered()), Task.MULTICLASS, "Smoothed"),
        (OwnProbabilities(), Task.MULTICLASS, "OwnProbabilities"),
        (adapt(nn.MSELoss(), Kind.PROBABILITIES, 4), Task.MULTICLASS, "MSELoss"),
        (adapt(nn.BCELoss(), Kind.BINARY, 4), Task.MULTILABEL, "BCELoss"),
    ],
)
def test_other_outputs_are_refused_in_one_line(loss, task, name):
    outputs = OUTPUTS if task is not Task.BINARY else OUTPUTS[:, :1]
    with pytest.raises(LabError, match=f"the outputs under {name} are something else: .* such as loss=") as error:
        find_logits(loss, outputs.sigmoid(), task)
    assert "\n" not in str(error.value)
