"""Labels of contours can be told apart, and cover what is drawn."""

import numpy as np
import pytest

from losslab.analysis.explain.figures import contours, even, written


@pytest.mark.parametrize(
    ("low", "high"), [(114.2, 123.9), (0.0, 11.0), (1e-9, 2e-9), (-3.0, -2.9), (5.0, 5.0), (0.3, 2e7)]
)
def test_no_two_levels_have_one_label(low, high):
    levels, logarithmic = contours(low, high)
    labels = [written(levels)(level) for level in levels]
    assert len(set(labels)) == len(levels)
    assert [float(label) for label in labels] == pytest.approx(levels.tolist(), rel=0.05)
    assert logarithmic == (low >= 0 and high > 10 * low)
    assert levels[-1] >= high


def test_numbers_of_ordinary_size_are_written_out():
    assert [written(np.array([110.0, 120.0]))(value) for value in (110.0, 120.0)] == ["110", "120"]


def test_even_levels_are_round_and_reach_beyond_both_ends():
    levels = even(0.4, 72.7)
    assert levels[0] <= 0.4
    assert levels[-1] >= 72.7
    assert np.allclose(np.diff(levels), levels[1] - levels[0])
    assert len(even(3.0, 3.0)) > 1
