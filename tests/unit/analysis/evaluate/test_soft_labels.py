"""Comparison of a network with human distributions."""

import numpy as np
import pytest
from scipy.special import softmax

from losslab.analysis.evaluate import soft_labels
from losslab.analysis.evaluate.predictions import Predictions
from losslab.data.batch import DataSpec
from losslab.errors import LabError
from losslab.targets import Kind, Task

N, C = 40, 3
random = np.random.default_rng(0)
HUMAN = random.dirichlet(np.ones(C), N)


def predictions(probabilities, index=None):
    truth = np.arange(N) % C
    spec = DataSpec(Task.MULTICLASS, Kind.INDEX, (2,), C)
    index = np.arange(N) if index is None else index
    return Predictions(spec, index, truth, truth, probabilities.argmax(1), np.zeros(N), probabilities, probabilities)


def test_cross_entropy_is_entropy_and_divergence():
    probabilities = softmax(random.normal(size=(N, C)), axis=1)
    metrics = soft_labels.soft_metrics(predictions(probabilities), HUMAN)
    cross = -(HUMAN * np.log(probabilities)).sum(1).mean()
    assert metrics["soft/cross_entropy"] == pytest.approx(cross, rel=1e-12)
    assert metrics["soft/entropy"] == pytest.approx(-(HUMAN * np.log(HUMAN)).sum(1).mean(), rel=1e-12)
    assert metrics["soft/kl"] == pytest.approx(metrics["soft/cross_entropy"] - metrics["soft/entropy"], rel=1e-12)
    chosen = probabilities.argmax(1)
    assert metrics["soft/accuracy"] == pytest.approx(np.mean([HUMAN[n, k] for n, k in enumerate(chosen)]))
    assert metrics["soft/agreement"] == np.mean(chosen == HUMAN.argmax(1))


def test_a_network_that_agrees_with_humans_has_no_difference():
    metrics = soft_labels.soft_metrics(predictions(HUMAN), HUMAN)
    assert metrics["soft/kl"] == pytest.approx(0, abs=1e-12)
    assert (metrics["soft/brier"], metrics["soft/total_variation"], metrics["soft/agreement"]) == (0, 0, 1)
    assert metrics["soft/entropy_correlation"] == pytest.approx(1)


def test_certain_humans_and_networks_give_finite_metrics():
    certain = np.eye(C)[np.arange(N) % C]
    metrics = soft_labels.soft_metrics(predictions(certain), np.roll(certain, 1, axis=1))
    assert metrics["soft/cross_entropy"] == pytest.approx(-np.log(np.finfo(np.float32).eps))
    assert metrics["soft/entropy"] == 0
    assert np.isnan(metrics["soft/entropy_correlation"])


def test_the_file_has_rows_for_the_split_or_for_the_data_set(tmp_path):
    np.save(tmp_path / "people.npy", HUMAN.astype(np.float32))
    read = soft_labels.load(tmp_path / "people.npy", predictions(HUMAN))
    assert np.allclose(read, HUMAN, atol=1e-6)
    assert np.abs(read.sum(1) - 1).max() < 1e-15
    whole = random.dirichlet(np.ones(C), 100)
    np.save(tmp_path / "whole.npy", whole)
    index = np.sort(random.permutation(100)[:N])
    assert np.allclose(soft_labels.load(tmp_path / "whole.npy", predictions(HUMAN, index), 100), whole[index])
    with pytest.raises(LabError, match=r"shape \(100, 3\), this split needs \(40, 3\)$"):
        soft_labels.load(tmp_path / "whole.npy", predictions(HUMAN), 100)
    with pytest.raises(LabError, match=r"this split needs \(40, 3\), or \(99, 3\) in the order of the whole data set"):
        soft_labels.load(tmp_path / "whole.npy", predictions(HUMAN, index), 99)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HUMAN[:, :2], r"shape \(40, 2\), this split needs \(40, 3\)"),
        (HUMAN[:, 0], r"shape \(40,\), this split needs"),
        (HUMAN[:-1], r"shape \(39, 3\)"),
        (HUMAN * 50, "40 of 40 are not; row 0 sums to 50 .*divide counts by the sum of their row"),
        (np.where(np.arange(N)[:, None] == 7, np.nan, HUMAN), "1 of 40 are not; row 7"),
        (np.where(np.arange(N)[:, None] == 7, np.array([[1.5, -0.5, 0]]), HUMAN), "1 of 40 are not; row 7"),
        (HUMAN.astype(object), "cannot read"),
        (np.full((N, C), "a"), "contains an array of <U1"),
        (None, "no file of soft labels at"),
        (b"no array", "cannot read"),
    ],
)
def test_invalid_distributions_are_rejected_in_one_line(tmp_path, content, message):
    path = tmp_path / "people.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(LabError, match=message) as error:
        soft_labels.load(path, predictions(HUMAN))
    assert "\n" not in str(error.value)


def test_an_archive_of_several_arrays_is_rejected(tmp_path):
    np.savez(tmp_path / "people.npz", HUMAN)
    with pytest.raises(LabError, match="contains several arrays"):
        soft_labels.load(tmp_path / "people.npz", predictions(HUMAN))


def test_soft_labels_need_exclusive_classes(runs, tmp_path):
    from losslab.analysis.evaluate import evaluation
    from losslab.training.reopen import EvaluationRequest

    with pytest.raises(LabError, match="these data are regression"):
        evaluation.evaluate(EvaluationRequest(runs("values")), tmp_path / "people.npy")


def test_human_columns_are_written_for_each_example(runs, tmp_path, rows, content):
    from losslab.analysis.evaluate import evaluation, report
    from losslab.training.reopen import EvaluationRequest

    human = np.random.default_rng(1).dirichlet(np.ones(3), 63)
    np.save(tmp_path / "people.npy", human)
    result = evaluation.evaluate(EvaluationRequest(runs("noisy"), trusted=("labelled",)), tmp_path / "people.npy")
    report.write_evaluation(result, tmp_path / "out")
    table, measured = rows(tmp_path / "out" / "predictions.csv"), content(tmp_path / "out" / "measures.json")
    assert [float(row["people_confidence"]) for row in table] == pytest.approx(human.max(1), rel=1e-6)
    mean = np.mean([float(row["soft_cross_entropy"]) for row in table])
    assert measured["test/soft/cross_entropy"] == pytest.approx(mean, rel=1e-6)
    one, other = (report.evaluation_name(result.request, tmp_path / folder / "people.npy") for folder in (".", "other"))
    assert one.startswith("test+soft=people-")
    assert other.startswith("test+soft=people-")
    assert one != other, "two files of the same name"
