"""Means over seeds, their intervals, and whether a difference is one."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import exp, inf, lcm, sqrt
from statistics import fmean, stdev
from typing import Self

from scipy.special import stdtr, stdtrit

LEVEL = 0.05
"""How often something may be claimed where there is nothing: by an interval alone, or by a family of differences."""


@dataclass(frozen=True)
class Estimate:
    """A mean and the half of its interval, of 95 % unless said otherwise."""

    mean: float
    half: float

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.mean + self.half

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out 0."""
        return abs(self.mean) > self.half

    def holds(self, value: float) -> bool:
        """Whether the interval holds a value."""
        return abs(self.mean - value) <= self.half


@dataclass(frozen=True)
class Factor:
    """A geometric mean, or the ratio of two, and its interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, logarithms: Estimate) -> Self:
        """What an estimate of a mean of natural logarithms stands for."""
        return cls(*map(power, (logarithms.mean, logarithms.low, logarithms.high)))

    @property
    def unbounded(self) -> bool:
        """Whether the interval says nothing: two seeds of many groups can give one beyond all numbers."""
        return self.low == 0 and self.high == inf


def power(logarithm: float) -> float:
    """What a natural logarithm is of: infinity, or 0, where that is beyond all numbers."""
    try:
        return exp(logarithm)
    except OverflowError:
        return inf


def estimate(values: Sequence[float], step: float = 0.0, level: float = LEVEL) -> Estimate:
    """Student's interval of the mean of at least two values.

    Args:
        values: of the seeds.
        step: what a value can change by at least, which the standard deviation is taken to reach: a few accuracies
            that agree by chance would otherwise seem known to any number of digits.
        level: how often the interval may miss.
    """
    return Estimate(fmean(values), float(stdtrit(len(values) - 1, 1 - level / 2)) * _error(values, step))


def difference(values: Sequence[float], baseline: Sequence[float], step: float = 0.0, level: float = LEVEL) -> Estimate:
    """The mean difference of runs that are paired by their seeds: same weights, batches and data."""
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    return estimate(differences, step if any(differences) else 0.0, level)


def p_value(values: Sequence[float], baseline: Sequence[float], step: float = 0.0) -> float:
    """Of the paired t test: how often differences are so far from 0 by chance. Where `difference` has its ends."""
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    if not any(differences):
        return 1.0
    mean, error = fmean(differences), _error(differences, step)
    if error == 0:
        return 0.0 if mean else 1.0
    return 2 * float(stdtr(len(differences) - 1, -abs(mean) / error))


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[float]:
    """The level at which each of a family of tests is made by Holm's step-down, which is that of its interval.

    The i-th smallest of m is tested at level/(m - i + 1), until one is not rejected: that one and all after it keep
    its level. So p ≤ its level, and an interval of that level leaves out 0, exactly where Holm rejects, and the chance
    of a false claim anywhere in the family is at most `level`. Each interval misses its own difference with at most
    that chance too; that none of them misses is not promised.

    Source: Holm 1979, *A simple sequentially rejective multiple test procedure*.
    """
    count = len(p_values)
    levels = [0.0] * count
    stopped: float | None = None
    for place, index in enumerate(sorted(range(count), key=lambda index: p_values[index])):
        own = level / (count - place) if stopped is None else stopped
        if stopped is None and p_values[index] > own:
            stopped = own
        levels[index] = own
    return levels


def verdict(found: Estimate, *, more_is_better: bool) -> str:
    """What a difference to the first choice says."""
    if found.mean == found.half == 0:
        return "equal"
    if not found.distinguishable:
        return "not distinguishable"
    return "better" if (found.mean > 0) == more_is_better else "worse"


def resolution(shares: Sequence[float]) -> float:
    """The least that shares of a number of examples, such as accuracies, can change by, as far as they tell.

    All are whole multiples of it: one example where they have no common factor, several where they happen to. 0 where
    they are no shares of up to 100,000 examples.
    """
    fractions = [Fraction(share).limit_denominator(100_000) for share in shares]
    if any(abs(float(fraction) - share) > 1e-12 for fraction, share in zip(fractions, shares, strict=True)):
        return 0.0
    examples = lcm(*(fraction.denominator for fraction in fractions))
    return 1 / examples if 1 < examples <= 100_000 else 0.0


def _error(values: Sequence[float], step: float) -> float:
    return max(stdev(values), step) / sqrt(len(values))
