"""Means over seeds, their intervals, and whether a difference is one."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from scipy.stats import t


@dataclass(frozen=True)
class Estimate:
    """A mean and the half of its 95 % interval."""

    mean: float
    half: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out 0."""
        return abs(self.mean) > self.half

    def holds(self, value: float) -> bool:
        """Whether the interval holds a value."""
        return abs(self.mean - value) <= self.half


def estimate(values: Sequence[float], step: float = 0.0) -> Estimate:
    """Student's interval of the mean of at least two values.

    Args:
        values: of the seeds.
        step: what a value can change by at least, which the standard deviation is taken to reach: a few accuracies
            that agree by chance would otherwise seem known to any number of digits.
    """
    deviation = max(stdev(values), step)
    return Estimate(fmean(values), float(t.ppf(0.975, len(values) - 1)) * deviation / sqrt(len(values)))


def difference(values: Sequence[float], baseline: Sequence[float], step: float = 0.0) -> Estimate:
    """The mean difference of runs that are paired by their seeds: same weights, batches and data."""
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    return estimate(differences, step if any(differences) else 0.0)


def verdict(found: Estimate, *, more_is_better: bool) -> str:
    """What a difference to the first choice says."""
    if found.mean == found.half == 0:
        return "equal"
    if not found.distinguishable:
        return "not distinguishable"
    return "better" if (found.mean > 0) == more_is_better else "worse"
