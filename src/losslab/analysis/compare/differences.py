"""Differences of groups from the baseline or the best group: paired by seed, corrected for their number."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log
from statistics import fmean
from typing import Literal, get_args

from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.statistics import (
    Estimate,
    GeometricEstimate,
    exp_or_inf,
    holm_levels,
    mean_estimate,
    paired_difference,
    paired_p_value,
    resolution,
    verdict,
)
from losslab.errors import LabError
from losslab.io.metric_names import direction

Scale = Literal["auto", "difference", "ratio"]
SCALES: tuple[Scale, ...] = get_args(Scale)
_RATIO_THRESHOLD = 10
"""With scale="auto", errors are compared by ratios if the largest mean is more than this many times the smallest."""


@dataclass(frozen=True)
class Difference:
    """Difference of a group from the reference in one metric."""

    group: Group
    reference: Group
    mean: float | None
    """Group minus reference, or group divided by reference, over common seeds; None if there are none."""
    pairs: int
    """Number of seeds that both have."""
    unpaired: int
    """Number of seeds that only one of them has."""
    p: float | None = None
    """Uncorrected p value of the paired t test; None below two pairs."""
    interval: Estimate | GeometricEstimate | None = None
    """Interval at `level`: excludes 0 (a ratio: 1) exactly where the corrected test rejects."""
    level: float | None = None
    """Significance level after Holm's correction."""
    verdict: str = ""
    """"better", "worse", "not distinguishable" or "equal"; "" if there was nothing to test."""


@dataclass(frozen=True, eq=False)
class MetricComparison:
    """All groups compared by one metric."""

    metric: str
    groups: tuple[Group, ...]
    """Sorted by mean, the best first; groups without a value last."""
    reference: Group | None
    """The baseline, or the group with the best mean."""
    has_baseline: bool
    """Whether the reference was named by the caller, instead of found in the data."""
    family_size: int
    """Number of tests that the correction is for."""
    step: float
    """Smallest possible change of the metric, estimated from its values."""
    differences: tuple[Difference, ...]
    """Differences of all other groups with values from the reference, in the order of `groups`."""
    ratios: bool
    """Whether groups are compared by ratios, as differences of logarithms. Means are then geometric."""

    def mean(self, group: Group) -> float | None:
        """Mean of a group over its seeds; None if it has no value."""
        values = _values(group, self.metric, self.ratios).values()
        return _mean(values, self.ratios) if values else None

    def estimate(self, group: Group) -> Estimate | GeometricEstimate | None:
        """Mean of a group with its 95 % interval over seeds; None below two seeds."""
        values = [*_values(group, self.metric, self.ratios).values()]
        return _from_scale(mean_estimate(values, self.step), self.ratios) if len(values) > 1 else None

    def difference(self, group: Group) -> Difference | None:
        """Difference of a group from the reference; None for the reference itself, or if one has no value."""
        return next((difference for difference in self.differences if difference.group is group), None)


def compare_metric(
    groups: Sequence[Group], metric: str, baseline: Group | None = None, scale: Scale = "auto"
) -> MetricComparison:
    """Compare groups by one metric.

    With scale="auto", errors without an upper bound (mse, mae, nll) are compared by ratios if the means of groups
    differ more than tenfold: large errors also vary more, so a difference from a large one says nothing about small
    ones.

    With a baseline, the family of tests is all differences from it. Without, it is all pairs of groups: the best group
    is found in the same data, so any pair could have been reported.

    Raises:
        LabError: scale="ratio", and a value is not above 0.
    """
    ratios = _use_ratios(groups, metric, scale)
    means = {group: fmean(_values(group, metric, ratios).values()) for group in groups if group.values(metric)}
    measured = sorted(means, key=means.__getitem__, reverse=direction(metric) == "max")
    ordered = (*measured, *(group for group in groups if group not in means))
    if baseline is None:
        repeated = [group for group in measured if len(group.values(metric)) > 1]
        reference = next(iter(repeated or measured), None)
    else:
        reference = baseline if baseline in means else None
    step = 0.0
    if metric.rpartition("/")[2] == "accuracy" and not ratios:
        step = resolution([value for group in measured for value in group.values(metric).values()])
    pairs = [(group, reference) for group in measured if group is not reference] if reference is not None else []
    family = pairs if baseline is not None else [*combinations(measured, 2)]
    p_values = {
        frozenset(pair): paired_p_value(*paired, step)
        for pair in family
        if len((paired := _paired(*pair, metric, ratios))[0]) > 1
    }
    levels = dict(zip(p_values, holm_levels([*p_values.values()]), strict=True))
    differences = [_difference(*pair, metric, step, ratios, levels.get(frozenset(pair))) for pair in pairs]
    return MetricComparison(
        metric, ordered, reference, baseline is not None, len(p_values), step, tuple(differences), ratios
    )


def _use_ratios(groups: Sequence[Group], metric: str, scale: Scale) -> bool:
    if scale == "difference":
        return False
    for group in groups:
        for seed, value in group.values(metric).items():
            if value <= 0 and scale == "ratio":
                raise LabError(
                    f"{metric} of {group.label} seed={seed} is {value:g}, and only values above 0 have ratios: compare "
                    "by differences (--scale difference), or by other metrics (--metric)"
                )
            if value <= 0:
                return False
    means = [fmean(group.values(metric).values()) for group in groups if group.values(metric)]
    unbounded = metric.rpartition("/")[2] in {"mse", "mae", "nll"}
    return scale == "ratio" or (unbounded and bool(means) and max(means) > _RATIO_THRESHOLD * min(means))


def _values(group: Group, metric: str, ratios: bool) -> dict[int, float]:
    """Values by seed, on the scale of the comparison: logarithms for ratios."""
    return {seed: log(value) if ratios else value for seed, value in group.values(metric).items()}


def _mean(values: Iterable[float], ratios: bool) -> float:
    mean = fmean(values)
    return exp_or_inf(mean) if ratios else mean


def _from_scale(estimate: Estimate, ratios: bool) -> Estimate | GeometricEstimate:
    return GeometricEstimate.from_logarithms(estimate) if ratios else estimate


def _paired(group: Group, other: Group, metric: str, ratios: bool) -> tuple[list[float], list[float]]:
    values, others = (_values(each, metric, ratios) for each in (group, other))
    common = [seed for seed in values if seed in others]
    return [values[seed] for seed in common], [others[seed] for seed in common]


def _difference(group: Group, other: Group, metric: str, step: float, ratios: bool, level: float | None) -> Difference:
    values, others = _paired(group, other, metric, ratios)
    unpaired = len(group.values(metric).keys() ^ other.values(metric).keys())
    mean = _mean((a - b for a, b in zip(values, others, strict=True)), ratios) if values else None
    if level is None:
        return Difference(group, other, mean, len(values), unpaired)
    estimate = paired_difference(values, others, step, level)
    word = verdict(estimate, higher_is_better=direction(metric) == "max")
    p, interval = paired_p_value(values, others, step), _from_scale(estimate, ratios)
    return Difference(group, other, mean, len(values), unpaired, p, interval, level, word)
