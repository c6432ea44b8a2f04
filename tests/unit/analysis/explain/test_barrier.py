"""Explanation `barrier`: scores and barriers on lines between solutions, and incompatible runs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from losslab.analysis.explain import LandscapeOptions, barrier
from losslab.analysis.explain.barrier import Line, interpolate, mix_weights
from losslab.analysis.explain.forward_passes import ForwardPasses
from losslab.analysis.explain.solution import load_batches, load_solutions
from losslab.errors import LabError


def test_the_ends_of_a_line_have_the_scores_of_the_solutions(folders):
    first, second = load_solutions(folders, "best")
    batches = load_batches(first, "train", 300, 0)
    line = interpolate(first, second, ForwardPasses(first, batches), 3)
    for solution, score in ((first, line.scores[0]), (second, line.scores[-1])):
        assert tuple(score) == pytest.approx(ForwardPasses(solution, batches).score({}), rel=1e-6)
    assert line.barriers[0] > 0.01, "two seeds, two valleys"


def test_a_barrier_is_the_height_above_the_straight_line_between_the_ends():
    share = np.linspace(0, 1, 5)
    hill = np.stack([1 + 2 * share + np.array([0, 0.5, 3, 0.5, 0]), share * 0], axis=1)
    valley = np.stack([(share - 0.5) ** 2, share], axis=1)
    assert Line(None, None, None, share, hill).barriers == pytest.approx((3, 0))
    assert Line(None, None, None, share, valley).barriers == pytest.approx((0, 0))


def test_a_matrix_has_the_barriers_of_all_pairs_and_of_the_loss_of_each_column():
    runs = [SimpleNamespace(label=n, config={"loss": n[0]}, metric_scale=100, is_regression=False, loss=n,
                            metric_name="error rate") for n in ("a 1", "b", "a 2")]  # fmt: skip

    def rise(first, second):
        return 0.1 if (first, second) == (0, 2) else 0.3

    heights = {(0, 1, 0): 3, (0, 1, 1): 5, (0, 2, 0): 7, (1, 2, 1): 11, (1, 2, 2): 13}
    lines = [
        Line(
            runs[first],
            runs[second],
            runs[loss_of],
            np.linspace(0, 1, 3),
            np.array([[0, 0], [height, rise(first, second)], [0, 0]]),
        )
        for (first, second, loss_of), height in heights.items()
    ]
    metric, loss = barrier.barrier_matrices(lines, runs)
    np.testing.assert_allclose(metric, [[np.nan, 30, 10], [30, np.nan, 30], [10, 30, np.nan]])
    np.testing.assert_allclose(loss, [[np.nan, 5, 7], [3, np.nan, 13], [7, 11, np.nan]])
    figure = barrier.draw(lines, "note")
    left, right = figure.axes
    names = [label.get_text() for label in left.get_yticklabels()]
    cells = {(names[text.get_position()[1]], names[text.get_position()[0]]): text.get_text() for text in right.texts}
    assert cells == {
        ("a 1", "b"): "5", ("a 1", "a 2"): "7", ("b", "a 1"): "3", ("b", "a 2"): "13", ("a 2", "a 1"): "7",
        ("a 2", "b"): "11",
    }  # fmt: skip
    assert sorted(text.get_text() for text in left.texts) == ["10.0"] * 2 + ["30.0"] * 4
    assert abs(names.index("a 1") - names.index("a 2")) == 1, "the runs with the lowest barrier are neighbours"


def test_runs_with_low_barriers_are_neighbours_in_a_matrix():
    valleys = [0, 1, 0, 1, 0]
    barriers = np.array([[np.nan if i == j else 0.1 + (a != b) for j, b in enumerate(valleys)]
                         for i, a in enumerate(valleys)])  # fmt: skip
    assert [valleys[index] for index in barrier._neighbours(barriers)] in ([0, 0, 0, 1, 1], [1, 1, 0, 0, 0])


def test_mixing_weights_equally_gives_their_mean():
    start, stop = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([4.0, 2.0])}
    assert [mix_weights(start, stop, share)["w"].tolist() for share in (0.0, 0.5, 1.0)] == [[0, 2], [2, 2], [4, 2]]


def test_incompatible_runs_are_rejected_in_one_line(folders, digits, train, tmp_path):
    wide = train(*digits, "model.hidden=[8]", "loss=cross_entropy")[0].folder
    split = train(*digits, "data.split_seed=1", "loss=cross_entropy")[0].folder
    with pytest.raises(LabError, match="a single run has no barrier"):
        barrier.explain(folders[:1], tmp_path)
    with pytest.raises(LabError, match="different networks"):
        barrier.explain([folders[0], wide], tmp_path)
    with pytest.raises(LabError, match=r"different data: data\.split_seed differs"):
        barrier.explain([folders[0], split], tmp_path)


@pytest.mark.slow
def test_runs_with_other_noise_are_rejected_and_another_draw_is_noted(
    folders, digits, train, tmp_path, monkeypatch, caplog
):
    options = (*digits, "loss=cross_entropy", "trainer.max_epochs=1")
    few = LandscapeOptions(points=3, examples=40)
    noisy = [train(*options, "noise=symmetric", f"seed={seed}")[0].folder for seed in (0, 1, 2)]
    more = train(*options, "noise=symmetric", "noise.rate=0.1")[0].folder
    rare = train(*options, "imbalance=long_tail")[0].folder
    for other, key in ((folders[0], "noise"), (more, r"noise\.rate"), (rare, "imbalance")):
        with pytest.raises(LabError, match=f"different data: {key}.* differs"):
            barrier.explain([noisy[0], other], tmp_path, few)
    with pytest.raises(LabError, match=r"different data: imbalance.* differs"):
        barrier.explain([folders[0], rare], tmp_path, few)
    notes = []
    draw = barrier.draw
    monkeypatch.setattr(barrier, "draw", lambda lines, note: notes.append(note) or draw(lines, note))
    with caplog.at_level("INFO"):
        barrier.explain(noisy, tmp_path, few)
    assert "with the noise and the imbalance of cross_entropy, seed 0" in notes[0]
    assert "the lowest and the highest of 3 barriers; barrier.csv contains all" in caplog.messages[-1]
    barrier.explain(folders, tmp_path, few)
    assert "noise" not in notes[1]
