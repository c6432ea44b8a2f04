"""Means over seeds, their confidence intervals, and paired tests corrected by Holm's method."""

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
    """A mean with a symmetric confidence interval, by default of 95 %."""

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half_width

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval."""
        return abs(self.mean) > self.half_width

    def contains(self, value: float) -> bool:
        """Whether a value lies inside the interval."""
        return abs(self.mean - value) <= self.half_width


@dataclass(frozen=True)
class GeometricEstimate:
    """A geometric mean, or a ratio of two, with its confidence interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def from_logarithms(cls, estimate: Estimate) -> Self:
        """Transform the estimate of a mean of natural logarithms back."""
        return cls(*map(exp_or_inf, (estimate.mean, estimate.low, estimate.high)))

    @property
    def unbounded(self) -> bool:
        """Whether the interval is (0, inf): two seeds and many groups can overflow a float."""
        return self.low == 0 and self.high == inf


def exp_or_inf(exponent: float) -> float:
    """e^exponent, or infinity where that overflows."""
    try:
        return exp(exponent)
    except OverflowError:
        return inf


def mean_estimate(values: Sequence[float], step: float = 0.0, level: float = LEVEL) -> Estimate:
    """Student's t interval of the mean of at least two values.

    Args:
        values: one value a seed.
        step: smallest possible change of a value. The standard deviation is taken to be at least this large; otherwise
            a few accuracies that agree by chance would have an interval of width 0.
        level: probability that the interval misses the true mean.
    """
    quantile = float(stdtrit(len(values) - 1, 1 - level / 2))
    return Estimate(fmean(values), quantile * _standard_error(values, step))


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], step: float = 0.0, level: float = LEVEL
) -> Estimate:
    """Mean difference of runs that are paired by seed: a pair has the same initial weights, batches and data."""
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    return mean_estimate(differences, step if any(differences) else 0.0, level)


def paired_p_value(values: Sequence[float], baseline: Sequence[float], step: float = 0.0) -> float:
    """P value of the paired t test, consistent with the interval of `paired_difference`."""
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    if not any(differences):
        return 1.0
    mean, error = fmean(differences), _standard_error(differences, step)
    if error == 0:
        return 0.0 if mean else 1.0
    return 2 * float(stdtr(len(differences) - 1, -abs(mean) / error))


def holm_levels(p_values: Sequence[float], level: float = LEVEL) -> list[float]:
    """Significance level of each test of a family under Holm's step-down correction.

    The i-th smallest p value of m is tested at level / (m - i + 1), until one is not rejected. That test and all
    later ones keep its level. So p ≤ its level, and an interval of that level excludes 0, exactly where Holm rejects.
    The probability of any false rejection in the family is at most `level`. Each interval also misses its own true
    difference with at most that probability; simultaneous coverage of all intervals is not promised.

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
    """Verdict on a difference from the reference: "better", "worse", "equal" or "not distinguishable"."""
    if difference.mean == difference.half_width == 0:
        return "equal"
    if not difference.excludes_zero:
        return "not distinguishable"
    return "better" if (difference.mean > 0) == higher_is_better else "worse"


def resolution(shares: Sequence[float]) -> float:
    """Smallest possible change of shares of examples, such as accuracies, estimated from the shares themselves.

    All shares are multiples of it: one example, or several if the shares happen to have a common factor. 0 if they are
    no shares of up to 100,000 examples.
    """
    fractions = [Fraction(share).limit_denominator(100_000) for share in shares]
    if any(abs(float(fraction) - share) > 1e-12 for fraction, share in zip(fractions, shares, strict=True)):
        return 0.0
    examples = lcm(*(fraction.denominator for fraction in fractions))
    return 1 / examples if 1 < examples <= 100_000 else 0.0


def _standard_error(values: Sequence[float], step: float) -> float:
    return max(stdev(values), step) / sqrt(len(values))
