"""Metrics of a record of training dynamics, compared with results by hand, and dynamics.npz."""

import math
from dataclasses import replace

import numpy as np
import pytest

from losslab.analysis.dynamics.record import Record, RecordedExamples, Snapshot, auroc, largest_share
from losslab.errors import LabError


def record(loss, margin=None, gradient=None, corrupted=None, epochs=None, task="multiclass"):
    """A record of snapshots (L, n) with one output each."""
    loss = np.asarray(loss, dtype=np.float32)
    margin = -loss if margin is None else np.asarray(margin, dtype=np.float32)
    gradient = loss if gradient is None else np.asarray(gradient, dtype=np.float32)
    count = loss.shape[1]
    wrong = np.zeros(count, dtype=bool) if corrupted is None else np.asarray(corrupted, dtype=bool)
    numbers = np.arange(count)
    snapshots = [
        Snapshot(epoch, 10 * epoch, loss[row][:, None], loss[row], margin[row], margin[row], gradient[row],
             np.array([1e-3, 0.1, 1.0]), np.zeros(2))
        for row, epoch in enumerate(epochs or range(len(loss)))
    ]  # fmt: skip
    return Record.of(
        task, "Mine", ["0 A", "1 B", "2 C"], np.zeros(2), RecordedExamples(numbers, numbers, numbers, wrong), snapshots
    )


def test_the_largest_tenth_of_equal_values_is_a_tenth_of_their_sum():
    assert largest_share(np.ones(30)) == pytest.approx(0.1)


def test_the_number_of_largest_values_is_rounded_up():
    gradient = np.array([1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5.0])
    assert largest_share(gradient) == pytest.approx(0.9)  # 2 of 11
    assert math.isnan(largest_share(np.zeros(10)))


def test_examples_without_gradient_are_found_relative_to_the_first_snapshot():
    each = record([[1, 3], [1, 1], [0, 1]], gradient=[[1, 3], [0.0019, 0.0021], [0, 2]])
    assert each.no_gradient().tolist() == [[False, False], [True, False], [True, False]]
    small = replace(each, gradient=each.gradient * 1e-5)
    assert (small.no_gradient() == each.no_gradient()).all()


def test_auroc_is_the_probability_that_a_wrong_label_scores_higher():
    corrupted = np.array([True, True, False, False, False])
    assert auroc(np.array([3.0, 1.0, 2.0, 0.0, 0.5]), corrupted) == pytest.approx(5 / 6)
    assert auroc(np.array([1.0, 1, 1, 1, 1]), corrupted) == pytest.approx(1 / 2)


def test_auroc_is_nan_without_wrong_or_without_right_labels():
    assert math.isnan(auroc(np.arange(3.0), np.zeros(3, dtype=bool)))
    assert math.isnan(auroc(np.arange(3.0), np.ones(3, dtype=bool)))
    assert math.isnan(auroc(np.array([0, np.nan, 1]), np.array([True, False, False])))


def test_area_under_margin_leaves_out_the_snapshot_before_training():
    each = record(np.ones((3, 2)), margin=[[100, -100], [1, 2], [3, -4]])
    area = each.area_under_margin()
    assert np.isnan(area[0]).all()
    assert area[1:].tolist() == [[1, 2], [2, -1]]


def test_large_residuals_of_either_sign_mark_wrong_values():
    each = record(np.ones((2, 3)), margin=[[0, 0, 0], [-5, 4, 1]], corrupted=[True, True, False], task="regression")
    assert each.margin_auroc()[1] == 1


def test_scalars_include_noise_auroc_only_with_wrong_labels():
    clean = record([[1, 2], [1, 2]])
    noisy = record([[1, 2], [1, 2]], corrupted=[False, True])
    plain = {"dynamics/gradient_share_hardest_10", "dynamics/no_gradient", "dynamics/gradient_norm_logits"}
    assert set(clean.newest_scalars()) == plain
    assert set(noisy.newest_scalars()) == plain | {"dynamics/noise_auroc", "dynamics/noise_auroc_margin"}
    assert noisy.newest_scalars()["dynamics/gradient_norm_logits"] == pytest.approx(1.5)


def test_flow_ratio_divides_by_the_last_layer():
    assert record([[1, 2]]).flow_ratio().tolist() == [[pytest.approx(1e-3), pytest.approx(0.1), 1]]


def test_a_record_survives_saving_and_loading(tmp_path):
    each = record([[1, 2], [3, 4]], corrupted=[False, True])
    each.save(tmp_path / "dynamics.npz")
    again = Record.load(tmp_path / "dynamics.npz")
    assert (again.task, again.loss_name, again.layers.tolist()) == ("multiclass", "Mine", ["0 A", "1 B", "2 C"])
    assert again.loss.tolist() == each.loss.tolist()
    assert again.corrupted.tolist() == [False, True]
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("damage", [b"", b"no archive", "cut", "other"])
def test_a_damaged_record_is_rejected_in_one_line(tmp_path, damage):
    path = tmp_path / "dynamics.npz"
    record([[1, 2]]).save(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "other":
        np.savez(path, loss=np.zeros(3))
    else:
        path.write_bytes(damage)
    with pytest.raises(LabError, match=r"cannot read .*: train the run again") as caught:
        Record.load(path)
    assert "\n" not in str(caught.value)
