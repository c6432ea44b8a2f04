"""Contour levels cover the values, and their labels are distinct."""

import numpy as np
import pytest

from losslab.analysis.explain.figures import contour_levels, level_formatter, round_levels


@pytest.mark.parametrize(
    ("low", "high"), [(114.2, 123.9), (0.0, 11.0), (1e-9, 2e-9), (-3.0, -2.9), (5.0, 5.0), (0.3, 2e7)]
)
def test_levels_have_distinct_labels(low, high):
    levels, logarithmic = contour_levels(low, high)
    labels = [level_formatter(levels)(level) for level in levels]
    assert len(set(labels)) == len(levels)
    assert [float(label) for label in labels] == pytest.approx(levels.tolist(), rel=0.05)
    assert logarithmic == (low >= 0 and high > 10 * low)
    assert levels[-1] >= high


def test_levels_below_100000_have_no_exponent():
    assert [level_formatter(np.array([110.0, 120.0]))(value) for value in (110.0, 120.0)] == ["110", "120"]


def test_round_levels_are_even_and_cover_both_ends():
    levels = round_levels(0.4, 72.7)
    assert levels[0] <= 0.4
    assert levels[-1] >= 72.7
    assert np.allclose(np.diff(levels), levels[1] - levels[0])
    assert len(round_levels(3.0, 3.0)) > 1
