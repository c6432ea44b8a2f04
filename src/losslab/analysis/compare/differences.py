"""Differences of groups from the best or from a baseline, on paired seeds, corrected for their number."""

from collections.abc import Sequence
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
_APART = 10
"""Where the means of two groups lie so many times apart, groups are compared by ratios."""


@dataclass(frozen=True)
class Difference:
    """How far a group lies from the reference in one metric."""

    group: Group
    reference: Group
    mean: float | None
    """Group minus reference over the seeds of both, or as its multiple; None where they share none."""
    pairs: int
    """How many seeds both have."""
    alone: int
    """How many seeds one of them lacks."""
    p: float | None = None
    """Of the paired t test, uncorrected; None below two pairs."""
    interval: Estimate | GeometricEstimate | None = None
    """At the level that Holm's correction gives it: it leaves out 0 (of ratios 1) where the corrected test rejects."""
    level: float | None = None
    """How often that interval may miss."""
    verdict: str = ""
    """"better", "worse", "not distinguishable", "equal"; "" where nothing can be tested."""


@dataclass(frozen=True, eq=False)
class MetricComparison:
    """Where all groups stand in one metric."""

    metric: str
    groups: tuple[Group, ...]
    """The best mean first; those without a value last."""
    reference: Group | None
    """The baseline, or the group with the best mean."""
    chosen: bool
    """Whether the reference was named before, and not found in the data."""
    family: int
    """How many differences were corrected for."""
    step: float
    """What the metric can change by at least, as far as its values tell."""
    differences: tuple[Difference, ...]
    """Of all groups but the reference, in the order of `groups`, where both have values."""
    ratios: bool
    """Whether groups are compared by ratios, which is by differences of logarithms: means are then geometric."""

    def mean(self, group: Group) -> float | None:
        """Over seeds; None where the group has no value."""
        values = _values(group, self.metric, ratios=self.ratios).values()
        return _shown(fmean(values), ratios=self.ratios) if values else None

    def estimate(self, group: Group) -> Estimate | GeometricEstimate | None:
        """The mean of a group and its 95 % interval over seeds; None below two seeds."""
        values = [*_values(group, self.metric, ratios=self.ratios).values()]
        if len(values) < 2:
            return None
        found = mean_estimate(values, self.step)
        return GeometricEstimate.of(found) if self.ratios else found

    def difference(self, group: Group) -> Difference | None:
        """Of this group from the reference; None for the reference itself and where one has no value."""
        return next((one for one in self.differences if one.group is group), None)


def compare_metric(
    groups: Sequence[Group], metric: str, baseline: Group | None = None, scale: Scale = "auto"
) -> MetricComparison:
    """Compare all groups by one metric.

    Errors that have no upper end (mse, mae, nll) are compared by ratios where groups lie more than ten times apart:
    what is large also varies by much, and a difference from it would say nothing about those that are small. `scale`
    has the last word.

    With a baseline, the family of differences that is corrected for are those from it. Without, all pairs are: the
    best is found in the same data, so any pair could have been the one that is looked at.

    Raises:
        LabError: ratios are asked for, and a value is not above 0.
    """
    more = direction(metric) == "max"
    ratios = _by_ratios(groups, metric, scale)
    means = {id(one): fmean(_values(one, metric, ratios=ratios).values()) for one in groups if one.values(metric)}
    ordered = sorted(groups, key=lambda one: (id(one) not in means, (-1 if more else 1) * means.get(id(one), 0)))
    known = [one for one in ordered if id(one) in means]
    several = [one for one in known if len(one.values(metric)) > 1]
    reference = next(iter(several or known), None) if baseline is None else baseline if baseline in known else None
    step = 0.0 if ratios else _step(metric, known)
    pairs = [(one, reference) for one in known if one is not reference] if reference is not None else []
    family = pairs if baseline is not None else [*combinations(known, 2)]
    tests = {frozenset(map(id, pair)): p for pair in family if (p := _tested(*pair, metric, step, ratios)) is not None}
    levels = dict(zip(tests, holm_levels([*tests.values()]), strict=True))
    found = [
        _difference(one, other, metric, step, levels.get(frozenset(map(id, (one, other)))), ratios)
        for one, other in pairs
    ]
    return MetricComparison(
        metric, tuple(ordered), reference, baseline is not None, len(tests), step, tuple(found), ratios
    )


def _by_ratios(groups: Sequence[Group], metric: str, scale: Scale) -> bool:
    if scale == "difference":
        return False
    values = [(one, seed, value) for one in groups for seed, value in one.values(metric).items()]
    without = next((each for each in values if each[-1] <= 0), None)
    if scale == "ratio" and without is not None:
        group, seed, value = without
        raise LabError(
            f"{metric} of {group.label} seed={seed} is {value:g}, and only values above 0 have ratios: compare by "
            "differences (--scale difference), or by other metrics (--metric)"
        )
    if scale == "ratio":
        return True
    means = [fmean(one.values(metric).values()) for one in groups if one.values(metric)]
    unlimited = metric.rpartition("/")[2] in {"mse", "mae", "nll"}
    return unlimited and without is None and bool(means) and max(means) > _APART * min(means)


def _values(group: Group, metric: str, *, ratios: bool) -> dict[int, float]:
    """By seed, on the scale on which groups are compared."""
    return {seed: log(value) if ratios else value for seed, value in group.values(metric).items()}


def _shown(mean: float, *, ratios: bool) -> float:
    return exp_or_inf(mean) if ratios else mean


def _paired(one: Group, other: Group, metric: str, ratios: bool) -> tuple[list[float], list[float]]:
    own, others = (_values(each, metric, ratios=ratios) for each in (one, other))
    shared = [seed for seed in own if seed in others]
    return [own[seed] for seed in shared], [others[seed] for seed in shared]


def _tested(one: Group, other: Group, metric: str, step: float, ratios: bool) -> float | None:
    own, others = _paired(one, other, metric, ratios)
    return paired_p_value(own, others, step) if len(own) > 1 else None


def _difference(one: Group, other: Group, metric: str, step: float, level: float | None, ratios: bool) -> Difference:
    own, others = _paired(one, other, metric, ratios)
    seeds = one.values(metric).keys() ^ other.values(metric).keys()
    mean = _shown(fmean(a - b for a, b in zip(own, others, strict=True)), ratios=ratios) if own else None
    if level is None:
        return Difference(one, other, mean, len(own), len(seeds))
    found = paired_difference(own, others, step, level)
    word = verdict(found, more_is_better=direction(metric) == "max")
    interval = GeometricEstimate.of(found) if ratios else found
    return Difference(one, other, mean, len(own), len(seeds), paired_p_value(own, others, step), interval, level, word)


def _step(metric: str, groups: Sequence[Group]) -> float:
    """One example where the metric is a share of examples; 0 where nothing is known of it."""
    if metric.rpartition("/")[2] != "accuracy":
        return 0.0
    return resolution([value for one in groups for value in one.values(metric).values()])
