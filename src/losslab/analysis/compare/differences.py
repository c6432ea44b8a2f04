"""Differences of groups from the baseline or the best group, paired by seed and corrected for multiple tests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import log
from statistics import fmean
from typing import Literal, get_args

from losslab.analysis.compare import statistics
from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.statistics import Estimate, GeometricEstimate
from losslab.errors import LabError
from losslab.io.metric_names import direction

Scale = Literal["auto", "difference", "ratio"]
SCALES: tuple[Scale, ...] = get_args(Scale)


@dataclass(frozen=True)
class Difference:
    """The difference of a group from the reference in one metric."""

    group: Group
    reference: Group
    mean: float | None
    """Mean over common seeds of group minus reference, or geometric mean of their ratio; None without common seeds."""
    pairs: int
    """The number of seeds that both groups have."""
    unpaired: int
    """The number of seeds that only one of the two groups has."""
    p: float | None = None
    """The uncorrected p value of the paired t test; None if there are fewer than two pairs."""
    interval: Estimate | GeometricEstimate | None = None
    """The interval at `level`; excludes 0 (for a ratio: 1) exactly if the corrected test rejects; None like `p`."""
    level: float | None = None
    """The significance level after Holm's correction; None like `p`."""
    verdict: str = ""
    """"better", "worse", "not distinguishable" or "equal"; "" if there are too few pairs for a test."""


@dataclass(frozen=True, eq=False)
class MetricComparison:
    """All groups compared by one metric."""

    metric: str
    groups: tuple[Group, ...]
    """All groups sorted by mean, the best first and groups without a value last."""
    values: Mapping[Group, Mapping[int, float]]
    """For each group with values: the values by seed, or their logarithms if `ratios`."""
    reference: Group | None
    """The baseline (None if it has no value), or else the best group: of those with several seeds, if there are any."""
    has_baseline: bool
    """Whether the caller named the reference; otherwise it was selected by its mean."""
    ratios: bool
    """Whether groups are compared by ratios, which are differences of logarithms. Means are then geometric."""
    step: float
    """For accuracies, their smallest possible change, estimated from the values; otherwise 0."""
    levels: Mapping[frozenset[Group], float]
    """The significance level of each tested pair of groups, after Holm's correction."""
    better: str
    """Either "min" or "max": whether lower or higher values are better."""

    @property
    def family_size(self) -> int:
        """The number of tests that are corrected together."""
        return len(self.levels)

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """The difference from the reference of each other group that has values, in the order of `groups`."""
        if self.reference is None:
            return ()
        others = (group for group in self.groups if group in self.values and group is not self.reference)
        return tuple(self._compare(group, self.reference) for group in others)

    def mean(self, group: Group) -> float | None:
        """Return the mean of a group over its seeds; None for a group without values."""
        return self._mean(self.values[group].values()) if group in self.values else None

    def estimate(self, group: Group) -> Estimate | GeometricEstimate | None:
        """Return the mean of a group with its 95 % interval over seeds; None for a group with fewer than two values."""
        values = [*self.values.get(group, {}).values()]
        return self._convert(statistics.mean_estimate(values, self.step)) if len(values) > 1 else None

    def difference(self, group: Group) -> Difference | None:
        """Return the difference of a group from the reference; None for the reference, or if one has no value."""
        return next((difference for difference in self.differences if difference.group is group), None)

    def _compare(self, group: Group, reference: Group) -> Difference:
        values, others = _pair_by_seed(self.values[group], self.values[reference])
        unpaired = len(self.values[group].keys() ^ self.values[reference].keys())
        mean = self._mean(value - other for value, other in zip(values, others, strict=True)) if values else None
        level = self.levels.get(frozenset((group, reference)))
        if level is None:
            return Difference(group, reference, mean, len(values), unpaired)
        p = statistics.paired_p_value(values, others, self.step)
        interval = statistics.paired_difference(values, others, self.step, level)
        word = statistics.verdict(interval, higher_is_better=self.better == "max")
        return Difference(group, reference, mean, len(values), unpaired, p, self._convert(interval), level, word)

    def _mean(self, values: Iterable[float]) -> float:
        mean = fmean(values)
        return statistics.exp_or_inf(mean) if self.ratios else mean

    def _convert(self, estimate: Estimate) -> Estimate | GeometricEstimate:
        return GeometricEstimate.from_logarithms(estimate) if self.ratios else estimate


def compare_metric(
    groups: Sequence[Group],
    metric: str,
    baseline: Group | None = None,
    scale: Scale = "auto",
    better: str | None = None,
) -> MetricComparison:
    """Compare groups by one metric.

    With scale="auto", errors without an upper bound (mse, mae, nll) are compared by ratios if all are above 0 and the
    means of groups differ by more than a factor of ten. Large errors usually also vary more between seeds, so that the
    interval of a difference from a group with large errors would be too wide to exclude 0.

    With a baseline, the family of tests consists of the differences of all groups from it. Without a baseline, it
    consists of all pairs of groups: the best group is selected on the same data, so every pair counts as a test.

    `better` is "min" or "max": whether lower or higher values are better. None: the name of the metric decides.

    Raises:
        LabError: scale="ratio", and a value is not above 0; or `better` is None and the name does not decide.
    """
    better = better or direction(metric, f"type --metric {metric}=min or {metric}=max")
    ratios = _use_ratios(groups, metric, scale)
    values = {
        group: {seed: log(value) if ratios else value for seed, value in group.values(metric).items()}
        for group in groups
        if group.values(metric)
    }
    measured = sorted(values, key=lambda group: fmean(values[group].values()), reverse=better == "max")
    ordered = (*measured, *(group for group in groups if group not in values))
    if baseline is None:
        several_seeds = [group for group in measured if len(values[group]) > 1]
        reference = next(iter(several_seeds or measured), None)
    else:
        reference = baseline if baseline in values else None
    step = 0.0
    if metric.rpartition("/")[2] == "accuracy" and not ratios:
        step = statistics.resolution([value for group in measured for value in values[group].values()])
    p_values = {}
    for pair in combinations(measured, 2):
        paired = _pair_by_seed(*(values[group] for group in pair))
        if len(paired[0]) > 1 and (baseline is None or baseline in pair):
            p_values[frozenset(pair)] = statistics.paired_p_value(*paired, step)
    levels = dict(zip(p_values, statistics.holm_levels([*p_values.values()]), strict=True))
    return MetricComparison(metric, ordered, values, reference, baseline is not None, ratios, step, levels, better)


def _use_ratios(groups: Sequence[Group], metric: str, scale: Scale) -> bool:
    if scale == "difference":
        return False
    for group in groups:
        for seed, value in group.values(metric).items():
            if value <= 0:
                if scale == "auto":
                    return False
                raise LabError(
                    f"{metric} of {group.label} seed={seed} is {value:g}, and only values above 0 have ratios: compare "
                    "by differences (--scale difference), or by other metrics (--metric)"
                )
    means = [fmean(group.values(metric).values()) for group in groups if group.values(metric)]
    unbounded = metric.rpartition("/")[2] in {"mse", "mae", "nll"}
    return scale == "ratio" or (unbounded and bool(means) and max(means) > 10 * min(means))


def _pair_by_seed(values: Mapping[int, float], others: Mapping[int, float]) -> tuple[list[float], list[float]]:
    common = [seed for seed in values if seed in others]
    return [values[seed] for seed in common], [others[seed] for seed in common]
