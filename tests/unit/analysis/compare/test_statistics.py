"""Means over seeds, their intervals, and verdicts on differences."""

import numpy as np
import pytest
import scipy.stats

from losslab.analysis.compare.statistics import (
    Estimate,
    GeometricEstimate,
    holm_levels,
    mean_estimate,
    paired_difference,
    paired_p_value,
    resolution,
    verdict,
)
from losslab.analysis.compare.tables import format_estimate


def test_the_interval_of_a_mean_is_students():
    found = mean_estimate([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half_width == pytest.approx(4.302653 / 3**0.5)  # t of 2 degrees of freedom, from a printed table


def test_differences_are_taken_seed_by_seed():
    found = paired_difference([1.1, 2.1, 3.1], [1.0, 2.0, 3.0])
    assert (found.mean, found.half_width) == pytest.approx((0.1, 0), abs=1e-12)


def test_equal_differences_of_accuracies_have_an_interval_of_one_example():
    found = paired_difference([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], step=0.1)
    assert (found.mean, found.half_width) == pytest.approx((0.1, 4.302653 * 0.1 / 3**0.5))
    assert paired_difference([0.5, 0.6], [0.5, 0.6], step=0.1) == Estimate(0, 0)


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
def test_a_verdict_needs_an_interval_that_excludes_0(found, more, said):
    assert verdict(found, higher_is_better=more) == said


def test_an_estimate_is_formatted_with_two_digits_of_its_half_width():
    assert format_estimate(Estimate(0.123456, 0.0123)) == "0.123 ± 0.012"
    assert format_estimate(Estimate(12.3456, 34.5), signed=True) == "+12 ± 34"
    assert format_estimate(Estimate(2.1386e11, 2.118e10)) == "2.14e+11 ± 2.1e+10"
    assert format_estimate(Estimate(1e3, 1e6), signed=True) == "0 ± 1.0e+06"
    assert format_estimate(Estimate(1.23e-299, 4.5e-300)) == "1.23e-299 ± 4.5e-300"
    assert format_estimate(GeometricEstimate(1.23456, 0.0, np.inf), signed=True) == "×1.23 (unbounded)"
    assert format_estimate(GeometricEstimate(1.23456, 0.5, np.inf), signed=True) == "×1.23 (0.5 to inf)"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Estimate(-0.01241, 0.01235), "-0.0124 ± 0.0123"),
        (Estimate(0.0123514, 0.0123508), "+0.0123514 ± 0.0123508"),
        (Estimate(0.012348, 0.012352), "+0.012 ± 0.012"),
        (Estimate(123456.0, 123123.0), "+1.235e+05 ± 1.231e+05"),
        (GeometricEstimate(1.1, 1.0002, 1.2), "×1.1 (1.0002 to 1.2)"),
        (GeometricEstimate(0.9, 0.8, 0.99996), "×0.9 (0.8 to 0.99996)"),
        (GeometricEstimate(1.1, 0.9998, 1.2), "×1.1 (1 to 1.2)"),
    ],
)
def test_rounding_never_hides_that_an_interval_excludes_0(found, said):
    assert format_estimate(found, signed=True) == said


def test_a_p_value_and_an_interval_agree():
    generator = np.random.default_rng(0)
    for _ in range(200):
        values, others = generator.normal(size=(2, 5)).tolist()
        p = paired_p_value(values, others)
        assert p == pytest.approx(scipy.stats.ttest_rel(values, others).pvalue)
        assert not paired_difference(values, others, level=p * 1.001).contains(0)
        assert paired_difference(values, others, level=p * 0.999).contains(0)


def test_holm_levels_are_those_of_the_step_down():
    assert holm_levels([0.03, 0.001, 0.02]) == pytest.approx([0.05, 0.05 / 3, 0.025])
    assert holm_levels([0.03, 0.001, 0.04]) == pytest.approx([0.025, 0.05 / 3, 0.025])  # 0.03 > 0.05/2: it stops there
    assert holm_levels([0.9, 0.8]) == [0.025, 0.025]
    assert holm_levels([]) == []


def test_intervals_exclude_0_exactly_where_holm_rejects():
    generator = np.random.default_rng(1)
    claims = 0
    for _ in range(100):
        samples = (generator.normal(size=(6, 4)) + generator.normal(size=(6, 1))).tolist()
        zeros = [0.0] * 4
        p_values = [paired_p_value(sample, zeros) for sample in samples]
        found = [
            paired_difference(sample, zeros, level=level)
            for sample, level in zip(samples, holm_levels(p_values), strict=True)
        ]
        ordered = sorted(p_values)
        rejected = [
            all(ordered[earlier] <= 0.05 / (6 - earlier) for earlier in range(ordered.index(p) + 1)) for p in p_values
        ]
        assert [not each.contains(0) for each in found] == rejected
        claims += sum(rejected)
    assert claims > 20


def simulated(runs, seeds, *shifts):
    """Yield, for each run, the values of groups that share the random effect of each seed."""
    generator = np.random.default_rng(2)
    for _ in range(runs):
        shared = generator.normal(size=seeds)
        yield [(shared + shift + generator.normal(scale=0.5, size=seeds)).tolist() for shift in shifts]


def test_without_differences_about_5_percent_of_families_have_a_false_verdict():
    false, runs = 0, 1500
    for baseline, *others in simulated(runs, 5, 0, 0, 0, 0):
        p_values = [paired_p_value(values, baseline) for values in others]
        false += any(p <= level for p, level in zip(p_values, holm_levels(p_values), strict=True))
    assert 0.025 < false / runs <= 0.06  # at most 0.05, but for chance; below it since the three share a baseline


def test_95_percent_of_intervals_contain_the_true_difference():
    runs = 1500
    held = sum(paired_difference(values, baseline).contains(0.7) for baseline, values in simulated(runs, 5, 0, 0.7))
    assert held / runs == pytest.approx(0.95, abs=0.017)  # three standard deviations


def test_each_interval_of_a_family_has_at_least_its_coverage():
    runs, held = 800, np.zeros(3)
    for baseline, *others in simulated(runs, 5, 0, 0, 1, 3):
        levels = holm_levels([paired_p_value(values, baseline) for values in others])
        found = [paired_difference(each, baseline, level=level) for each, level in zip(others, levels, strict=True)]
        held += [each.contains(true) for each, true in zip(found, (0, 1, 3), strict=True)]
    assert (held / runs > 0.93).all()


@pytest.mark.parametrize(
    ("shares", "step"),
    [
        ([262 / 270, 261 / 270, 263 / 270], 1 / 270),
        ([0.9713, 0.9714, 0.6], 1 / 10000),
        ([0.5, 0.5, 0.25], 0.25),
        ([1.0, 1.0], 0.0),
        ([2**0.5 / 2, 3**0.5 / 2], 0.0),
    ],
)
def test_the_resolution_of_accuracies_is_one_example(shares, step):
    assert resolution(shares) == step
