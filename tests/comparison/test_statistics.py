"""Means over seeds, their intervals, and what is said of differences."""

import pytest

from losslab.comparison.numbers import number
from losslab.comparison.statistics import Estimate, difference, estimate, verdict


def test_an_interval_is_student_s():
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half == pytest.approx(4.302653 / 3**0.5)  # t of 2 degrees of freedom, from a printed table


def test_differences_are_taken_seed_by_seed():
    found = difference([1.1, 2.1, 3.1], [1.0, 2.0, 3.0])
    assert (found.mean, found.half) == pytest.approx((0.1, 0), abs=1e-12)


def test_accuracies_that_agree_are_known_to_one_test_example_only():
    found = difference([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], step=0.1)
    assert (found.mean, found.half) == pytest.approx((0.1, 4.302653 * 0.1 / 3**0.5))
    assert difference([0.5, 0.6], [0.5, 0.6], step=0.1) == Estimate(0, 0)


@pytest.mark.parametrize(
    ("found", "more", "said"),
    [
        (Estimate(0.1, 0.2), True, "not distinguishable"),
        (Estimate(-0.2, 0.2), True, "not distinguishable"),
        (Estimate(0.3, 0.2), True, "better"),
        (Estimate(0.3, 0.2), False, "worse"),
        (Estimate(-0.3, 0.2), False, "better"),
        (Estimate(0.0, 0.0), True, "equal"),
    ],
)
def test_a_difference_is_claimed_only_where_its_interval_leaves_out_0(found, more, said):
    assert verdict(found, more_is_better=more) == said


def test_a_number_shows_the_digits_that_its_interval_leaves():
    assert number(Estimate(0.123456, 0.0123)) == "0.123 ± 0.012"
    assert number(Estimate(12.3456, 34.5), signed=True) == "+12 ± 34"
