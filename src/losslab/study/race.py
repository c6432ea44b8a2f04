"""The race: the values of all groups on the test data by seed, and the decision about each group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite, log, log1p
from statistics import fmean

import numpy as np

from losslab.analysis.compare import statistics
from losslab.analysis.compare.statistics import Estimate, GeometricEstimate
from losslab.errors import LabError
from losslab.io.metric_names import direction
from losslab.study.sequential import (
    Interval,
    Look,
    StoppingRule,
    Verdict,
    corrected_interval,
    decide,
    look_sizes,
    looks_at,
    seeds_needed,
)
from losslab.study.test_items import PLAIN, Scores, TestItems, item_interval

_SHARES = {"accuracy", "precision", "recall", "f1", "ece", "auroc", "auprc"}
"""Metrics between 0 and 1, which are compared by differences. Other errors are compared by ratios."""
_SHARE_MARGIN = 0.005
_RATIO_MARGIN = 0.05


@dataclass(frozen=True)
class Scale:
    """How a metric is compared."""

    metric: str
    """The name without its split, such as "accuracy"."""
    higher_is_better: bool
    by_ratio: bool
    """Whether groups are compared by ratios, which are differences of logarithms."""
    margin: float
    """Groups are equivalent if they differ by less: a difference, or a fraction if `by_ratio`."""

    @classmethod
    def of(cls, metric: str, margin: float | None) -> "Scale":
        """Return the scale of a metric, with a default margin: 0.005 for shares such as accuracy, 5 % for errors.

        Raises:
            LabError: the name does not tell whether higher values are better.
        """
        higher = direction(metric, "choose another with study.metric") == "max"
        by_ratio = metric not in _SHARES and not higher
        return cls(metric, higher, by_ratio, margin or (_RATIO_MARGIN if by_ratio else _SHARE_MARGIN))

    @property
    def tested_margin(self) -> float:
        """The margin on the scale of the tests."""
        return log1p(self.margin) if self.by_ratio else self.margin

    def transform(self, value: float, label: str) -> float:
        """Return a value on the scale of the tests: for ratios its logarithm. Raise a LabError if it has none."""
        if not self.by_ratio:
            return value
        if value <= 0:
            raise LabError(
                f"{self.metric} of {label} is {value:g}, and only errors above 0 have ratios: set study.metric"
            )
        return log(value)


@dataclass
class Row:
    """A row of the race: a group, or a method that is fitted to the finished runs of a group."""

    label: str
    values: dict[int, float] = field(default_factory=dict)
    """The value of the metric on the test data, by seed."""
    diverged: list[int] = field(default_factory=list)
    """The seeds with which the run diverged: if there are any, the group is out of the race."""
    others: dict[int, Mapping[str, float]] = field(default_factory=dict)
    """All metrics on the test data by name without the split, by seed."""
    group: int = 0
    """The index of the group whose runs these are."""
    method: str = ""
    """The method that is fitted after training, such as "temperature"; "" for the runs themselves."""
    items: dict[int, Scores] = field(default_factory=dict)
    """The score of each test example (N,) by seed, whose mean is the metric; empty if the metric is no mean."""

    def add(self, seed: int, value: float, metrics: Mapping[str, float]) -> None:
        """Add the results of one seed. A value that is not finite counts as diverged, as in the tuning."""
        if isfinite(value):
            self.values[seed], self.others[seed] = value, metrics
        else:
            self.diverged.append(seed)

    def copy(self, other: "Row", seeds: Sequence[int]) -> None:
        """Copy the results of another row for some seeds, if it has them."""
        self.values |= {seed: other.values[seed] for seed in seeds if seed in other.values}
        self.others |= {seed: other.others[seed] for seed in seeds if seed in other.others}
        self.items |= {seed: other.items[seed] for seed in seeds if seed in other.items}

    @property
    def is_posthoc(self) -> bool:
        """Whether the row is a method that is fitted after training."""
        return bool(self.method)

    def mean(self, metric: str) -> float | None:
        """Return the mean over the seeds of one of all metrics; None if a run does not have it."""
        values = [metrics.get(metric) for metrics in self.others.values()]
        found = [value for value in values if value is not None]
        return fmean(found) if found and len(found) == len(values) else None


@dataclass(frozen=True)
class Outcome:
    """What the race says about a row."""

    row: Row
    estimate: Estimate | GeometricEstimate | None
    """The mean with Student's 95 % interval over all seeds of the row; None with fewer than two seeds."""
    pairs: int = 0
    """The number of seeds on which the decision is based."""
    difference: Interval | None = None
    """Mean difference from the reference (a ratio if the scale is one) with its corrected 95 % interval."""
    verdict: str = ""
    """"reference", "better", "worse", "equivalent", "undecided", "diverged", or "same runs" if no value differs."""
    items: Interval | None = None
    """The same difference with its 95 % interval over test examples, by the bootstrap; None if it is not known."""
    seeds_needed: int | None = None
    """For an undecided row, the predicted number of further seeds; None if it cannot be predicted."""


@dataclass
class Race:
    """The rows of a race and how they are compared."""

    scale: Scale
    rows: list[Row]
    """A row for each group, in their order, then those of methods after training."""
    reference: int
    """The index of the row with which the others are compared."""
    first_seeds: int
    max_seeds: int
    checksums: set[int] = field(default_factory=set)
    """The checksums of the test examples of all runs: one, unless each seed has other test data."""

    def __post_init__(self) -> None:
        self.sizes = look_sizes(self.max_seeds, self.first_seeds)
        """The numbers of seeds at which the rows are compared."""

    def add_items(self, group: int, seed: int, items: TestItems) -> None:
        """Add what the second evaluation of a run gave: the scores of test examples, and methods after training."""
        own = self.rows[group]
        self.checksums.add(items.checksum)
        if PLAIN in items.scores:
            own.items[seed] = items.scores[PLAIN]
        fitted = {method: metrics for method, metrics in items.metrics.items() if self.scale.metric in metrics}
        for method, metrics in fitted.items():
            row = self.posthoc_row(group, method)
            row.add(seed, metrics[self.scale.metric], metrics)
            if method in items.scores:
                row.items[seed] = items.scores[method]
        for row in self.rows:
            if row.group == group and row.is_posthoc and row.method not in fitted:
                row.copy(own, [seed])

    def posthoc_row(self, group: int, method: str) -> Row:
        """Return the row of a method that is fitted to the runs of a group; it is added if it is missing.

        A run to which the method is not fitted counts as it is, so the row has a value for each seed of the group.
        """
        for row in self.rows:
            if (row.group, row.method) == (group, method):
                return row
        own = self.rows[group]
        row = Row(f"{own.label} + {method.replace('_', ' ')}", group=group, method=method)
        row.copy(own, list(own.values))
        self.rows.append(row)
        return row

    def restart(self, group: int) -> list[int]:
        """Remove all results of a group, to run it again with other values, and return its seeds."""
        own = self.rows[group]
        seeds = sorted({*own.values, *own.diverged})
        for row in self.rows:
            if row.group == group:
                for results in (row.values, row.others, row.items, row.diverged):
                    results.clear()
        return seeds

    def compared(self) -> list[Row]:
        """Return the rows that are tested: all but the reference, diverged groups, and those that equal their group.

        A method after training may leave the metric as it is: temperature scaling does not change the accuracy.
        """
        reference = self.rows[self.reference]
        rows = [row for row in self.rows if row is not reference and not self._is_out(row)]
        return [row for row in rows if not self._repeats_group(row)]

    def _is_out(self, row: Row) -> bool:
        return bool(row.diverged or self.rows[row.group].diverged)

    def _repeats_group(self, row: Row) -> bool:
        return row.is_posthoc and row.values == self.rows[row.group].values

    def looks(self, row: Row) -> list[Look]:
        """Return the looks at the differences of a row so far."""
        return looks_at(self.differences(row), self.sizes, self.step)

    def differences(self, row: Row) -> list[float]:
        """Return the differences of a row from the reference, on the scale of the tests, for their common seeds."""
        other = self.rows[self.reference]
        common = sorted(row.values.keys() & other.values.keys())
        return [
            self.scale.transform(row.values[seed], row.label) - self.scale.transform(other.values[seed], other.label)
            for seed in common
        ]

    @property
    def step(self) -> float:
        """The smallest possible change of a share, estimated from all values; 0 for other metrics."""
        if self.scale.metric != "accuracy":
            return 0.0
        return _resolution(frozenset(value for row in self.rows for value in row.values.values()))

    def verdicts(self) -> Mapping[str, Verdict]:
        """Return the verdict on each compared row, by its label."""
        rows = self.compared()
        pairs = [self.looks(row) for row in rows]
        higher = self.scale.higher_is_better
        verdicts = decide(pairs, self.scale.tested_margin, higher_is_better=higher)
        return {row.label: verdict for row, verdict in zip(rows, verdicts, strict=True)}

    def undecided(self) -> list[Row]:
        """Return the rows about which nothing is decided yet."""
        verdicts = self.verdicts()
        return [row for row in self.compared() if verdicts[row.label].decision is None]

    def outcomes(self) -> list[Outcome]:
        """Return the outcome of each row, in the order of the mean differences, the best first and diverged rows last.

        Means over different numbers of seeds would contradict the verdicts, if some seeds are better for all rows.
        """
        verdicts = self.verdicts()
        sign = -1 if self.scale.higher_is_better else 1

        def rank(row: Row) -> tuple[bool, bool, float]:
            differences = self.differences(row)
            mean = sign * fmean(differences) if differences else 0.0
            return self._is_out(row) or not differences, not differences, mean

        return [self._outcome(row, verdicts.get(row.label)) for row in sorted(self.rows, key=rank)]

    def _outcome(self, row: Row, verdict: Verdict | None) -> Outcome:
        values = [self.scale.transform(value, row.label) for value in row.values.values()]
        estimate: Estimate | GeometricEstimate | None = None
        if len(values) > 1:
            estimate = statistics.mean_estimate(values, self.step)
            estimate = GeometricEstimate.from_logarithms(estimate) if self.scale.by_ratio else estimate
        if verdict is None:
            special = "diverged" if self._is_out(row) else "same runs" if row.is_posthoc else "reference"
            return Outcome(row, estimate, verdict=special)
        looks = self.looks(row)
        if not looks:  # a method after training, and runs that were not evaluated again
            return Outcome(row, estimate, verdict="undecided")
        rule = StoppingRule(tuple(self.sizes), self.scale.tested_margin, verdict.levels)
        last = rule.stop(looks)
        difference = corrected_interval(last, rule)
        if self.scale.by_ratio:
            difference = Interval(*map(statistics.exp_or_inf, difference))
        items = self._item_interval(row)
        if verdict.decision is not None:
            return Outcome(row, estimate, last.n, difference, verdict.decision, items)
        needed = seeds_needed(last, self.scale.tested_margin, verdict.levels, self.first_seeds)
        return Outcome(row, estimate, last.n, difference, "undecided", items, needed and needed - last.n)

    def _item_interval(self, row: Row) -> Interval | None:
        other = self.rows[self.reference]
        common = sorted(row.values.keys() & other.values.keys())
        complete = all(seed in row.items and seed in other.items for seed in common)
        if not common or not complete or len(self.checksums) != 1:
            return None
        own, reference = (np.stack([each.items[seed] for seed in common]) for each in (row, other))
        return item_interval(own, reference, as_ratio=self.scale.by_ratio)

    def next_seeds(self) -> dict[int, Sequence[int]]:
        """Return the seeds of the next round by group: none if all rows are decided or the last round has ended.

        Only the reference and the groups of undecided rows get more seeds.
        """
        undecided = self.undecided()
        if not undecided:
            return {}
        groups = sorted({self.rows[self.reference].group, *(row.group for row in undecided)})
        done = min(len(self.rows[group].values) for group in groups)
        size = next((size for size in self.sizes if size > done), 0)
        missing = {group: [seed for seed in range(size) if seed not in self.rows[group].values] for group in groups}
        return {group: seeds for group, seeds in missing.items() if seeds}


@lru_cache(maxsize=1)
def _resolution(values: frozenset[float]) -> float:
    return statistics.resolution(sorted(values))
