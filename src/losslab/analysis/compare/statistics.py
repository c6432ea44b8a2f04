"""Means over seeds with confidence intervals, and paired tests with Holm's correction."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import exp, inf, lcm, sqrt
from statistics import fmean, stdev
from typing import Self

from scipy.special import stdtr, stdtrit

LEVEL = 0.05
"""Significance level of a single interval, and of a whole family of tests."""


@dataclass(frozen=True)
class Estimate:
    """A mean with a symmetric confidence interval."""

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.mean + self.half_width

    def contains(self, value: float) -> bool:
        """Return whether a value is inside the interval."""
        return abs(self.mean - value) <= self.half_width


@dataclass(frozen=True)
class GeometricEstimate:
    """A geometric mean, or a ratio of two geometric means, with a confidence interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def from_logarithms(cls, estimate: Estimate) -> Self:
        """Convert the estimate of a mean of natural logarithms by exponentiation."""
        return cls(*map(exp_or_inf, (estimate.mean, estimate.low, estimate.high)))

    @property
    def unbounded(self) -> bool:
        """Whether the interval is (0, inf) because its ends overflow, for example with two seeds and a small level."""
        return self.low == 0 and self.high == inf


def exp_or_inf(exponent: float) -> float:
    """Return e^exponent, or infinity if that overflows."""
    try:
        return exp(exponent)
    except OverflowError:
        return inf


def mean_estimate(values: Sequence[float], step: float = 0.0, level: float = LEVEL) -> Estimate:
    """Return the mean of at least two values, one per seed, with Student's t interval at a significance level.

    The standard deviation is assumed to be at least `step`, the smallest possible change of a value. Otherwise a few
    accuracies that are equal by chance would have an interval of width 0.
    """
    quantile = float(stdtrit(len(values) - 1, 1 - level / 2))
    return Estimate(fmean(values), quantile * _standard_error(values, step))


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], step: float = 0.0, level: float = LEVEL
) -> Estimate:
    """Return the mean of value - baseline with its interval. Both lists have one value per seed, in the same order."""
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    return mean_estimate(differences, step if any(differences) else 0.0, level)


def paired_p_value(values: Sequence[float], baseline: Sequence[float], step: float = 0.0) -> float:
    """Return the p value of the paired t test. It is at most `level` exactly if the interval at `level` excludes 0."""
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    if not any(differences):
        return 1.0
    mean, error = fmean(differences), _standard_error(differences, step)
    if error == 0:
        return 0.0 if mean else 1.0
    return 2 * float(stdtr(len(differences) - 1, -abs(mean) / error))


def holm_levels(p_values: Sequence[float], level: float = LEVEL) -> list[float]:
    """Return the significance level of each test of a family under Holm's step-down correction.

    The i-th smallest of m p values is tested at level / (m - i + 1), up to the first p value above its level. This test
    and all later tests get that level. So exactly the tests with p ≤ their level reject, and exactly their intervals
    (of confidence 1 - their level) exclude 0. The probability of any false rejection in the family is at most `level`.
    The probability that an interval does not contain its own true difference is also at most `level`; simultaneous
    coverage of all intervals is not guaranteed.

    Source: Holm 1979, *A simple sequentially rejective multiple test procedure*.
    """
    count = len(p_values)
    levels = [0.0] * count
    rejecting, own_level = True, level
    for rank, index in enumerate(sorted(range(count), key=p_values.__getitem__)):
        if rejecting:
            own_level = level / (count - rank)
            rejecting = p_values[index] <= own_level
        levels[index] = own_level
    return levels


def verdict(difference: Estimate, *, higher_is_better: bool) -> str:
    """Return the verdict on a difference from the reference: "better", "worse", "equal" or "not distinguishable"."""
    if difference.mean == difference.half_width == 0:
        return "equal"
    if difference.contains(0):
        return "not distinguishable"
    return "better" if (difference.mean > 0) == higher_is_better else "worse"


def resolution(fractions: Sequence[float]) -> float:
    """Estimate the smallest possible change of accuracies, or of other fractions of examples, from their values.

    Return the largest number of which all fractions are multiples. It is 1 / (number of examples), or a multiple of
    that by chance. Return 0 if all fractions are 0 or 1, or if they are not fractions of up to 100,000 examples.
    """
    exact = [Fraction(value).limit_denominator(100_000) for value in fractions]
    if any(abs(float(fraction) - value) > 1e-12 for fraction, value in zip(exact, fractions, strict=True)):
        return 0.0
    examples = lcm(*(fraction.denominator for fraction in exact))
    return 1 / examples if 1 < examples <= 100_000 else 0.0


def _standard_error(values: Sequence[float], step: float) -> float:
    return max(stdev(values), step) / sqrt(len(values))
