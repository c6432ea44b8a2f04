"""The numbers of training dynamics on cases worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from losslab.analysis.dynamics import measures
from losslab.analysis.dynamics.record import Examples, Look, Record
from losslab.errors import LabError


def record(loss, margin=None, gradient=None, corrupted=None, epochs=None, task="multiclass"):
    """A record of looks (L, n) with one output each."""
    loss = np.asarray(loss, dtype=np.float32)
    margin = -loss if margin is None else np.asarray(margin, dtype=np.float32)
    gradient = loss if gradient is None else np.asarray(gradient, dtype=np.float32)
    count = loss.shape[1]
    marred = np.zeros(count, dtype=bool) if corrupted is None else np.asarray(corrupted, dtype=bool)
    numbers = np.arange(count)
    looks = [
        Look(epoch, 10 * epoch, loss[row][:, None], loss[row], margin[row], margin[row], gradient[row],
             np.array([1e-3, 0.1, 1.0]), np.zeros(2))
        for row, epoch in enumerate(epochs or range(len(loss)))
    ]  # fmt: skip
    return Record.of(
        task, "Mine", ["0 A", "1 B", "2 C"], np.zeros(2), Examples(numbers, numbers, numbers, marred), looks
    )


def test_equal_gradients_leave_the_hardest_tenth_a_tenth():
    assert measures.hardest_share(np.ones(30)) == pytest.approx(0.1)


def test_the_share_of_the_hardest_tenth_counts_the_largest_and_rounds_up():
    gradient = np.array([1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5.0])
    assert measures.hardest_share(gradient) == pytest.approx(0.9)  # 2 of 11
    assert math.isnan(measures.hardest_share(np.zeros(10)))


def test_no_gradient_is_relative_to_the_first_look():
    seen = record([[1, 3], [1, 1], [0, 1]], gradient=[[1, 3], [0.0019, 0.0021], [0, 2]])
    assert measures.silent(seen).tolist() == [[False, False], [True, False], [True, False]]
    small = replace(seen, gradient=seen.gradient * 1e-5)
    assert (measures.silent(small) == measures.silent(seen)).all()


def test_the_auroc_is_the_chance_that_a_wrong_label_costs_more():
    corrupted = np.array([True, True, False, False, False])
    assert measures.auroc(np.array([3.0, 1.0, 2.0, 0.0, 0.5]), corrupted) == pytest.approx(5 / 6)
    assert measures.auroc(np.array([1.0, 1, 1, 1, 1]), corrupted) == pytest.approx(1 / 2)


def test_without_wrong_or_without_right_labels_there_is_no_auroc():
    assert math.isnan(measures.auroc(np.arange(3.0), np.zeros(3, dtype=bool)))
    assert math.isnan(measures.auroc(np.arange(3.0), np.ones(3, dtype=bool)))
    assert math.isnan(measures.auroc(np.array([0, np.nan, 1]), np.array([True, False, False])))


def test_the_area_under_the_margin_leaves_out_the_look_before_training():
    seen = record(np.ones((3, 2)), margin=[[100, -100], [1, 2], [3, -4]])
    area = measures.area_under_margin(seen)
    assert np.isnan(area[0]).all()
    assert area[1:].tolist() == [[1, 2], [2, -1]]


def test_of_values_large_residuals_of_either_sign_are_suspect():
    seen = record(np.ones((2, 3)), margin=[[0, 0, 0], [-5, 4, 1]], corrupted=[True, True, False], task="regression")
    assert measures.margin_auroc(seen)[1] == 1


def test_an_example_is_forgotten_when_it_was_right_and_becomes_wrong():
    seen = record(np.ones((5, 3)), margin=[[1, -1, 1], [-1, -1, 1], [1, -1, 1], [0, 1, 1], [1, 1, 1]])
    assert measures.forgotten(seen).tolist() == [2, 0, 0]


def test_scalars_name_the_noise_only_where_there_is_some():
    clean = record([[1, 2], [1, 2]])
    noisy = record([[1, 2], [1, 2]], corrupted=[False, True])
    plain = {"dynamics/gradient_share_hardest_10", "dynamics/no_gradient", "dynamics/gradient_norm_logits"}
    assert set(measures.scalars(clean)) == plain
    assert set(measures.scalars(noisy)) == plain | {"dynamics/noise_auroc", "dynamics/noise_auroc_margin"}
    assert measures.scalars(noisy)["dynamics/gradient_norm_logits"] == pytest.approx(1.5)


def test_layers_are_compared_with_the_last():
    assert measures.flow_ratio(record([[1, 2]])).tolist() == [[pytest.approx(1e-3), pytest.approx(0.1), 1]]


def test_a_record_comes_back_from_its_file(tmp_path):
    seen = record([[1, 2], [3, 4]], corrupted=[False, True])
    seen.save(tmp_path / "dynamics.npz")
    again = Record.load(tmp_path / "dynamics.npz")
    assert (again.task, again.loss_name, again.layers.tolist()) == ("multiclass", "Mine", ["0 A", "1 B", "2 C"])
    assert again.loss.tolist() == seen.loss.tolist()
    assert again.corrupted.tolist() == [False, True]
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("damage", [b"", b"no archive", "cut", "other"])
def test_a_damaged_record_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "dynamics.npz"
    record([[1, 2]]).save(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "other":
        np.savez(path, loss=np.zeros(3))
    else:
        path.write_bytes(damage)
    with pytest.raises(LabError, match=r"cannot read .*: train again") as caught:
        Record.load(path)
    assert "\n" not in str(caught.value)
