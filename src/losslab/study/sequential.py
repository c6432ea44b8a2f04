"""Tests of paired differences that are repeated as seeds are added: better, worse, equivalent, or undecided.

A pair of groups is tested when it has 5, 10, 15, ... common seeds, until it is decided. Each of these looks spends a
quarter of the significance level that is left, so the looks together spend no more than the level (Bonferroni), however
many follow. Therefore a study may be extended later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, inf, sqrt
from statistics import fmean, stdev
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from losslab.analysis.compare.statistics import LEVEL, holm_levels

Array: TypeAlias = NDArray[np.float64]
Decision = Literal["better", "worse", "equivalent"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)

_SPENT = 0.25
"""The share of the remaining significance level that each look spends."""
_PATHS = 4000
"""The number of simulated sequences of differences from which an interval is computed."""
_MAX_LOOKS = 40
"""The number of looks after which the prediction of the seeds needed ends."""


def look_sizes(max_seeds: int, first: int = 5) -> list[int]:
    """Return the numbers of seeds at which a pair is tested, up to `max_seeds`: 5, 10, 15, 20, 25, 35, 45, 60, ...

    Each look adds at least `first` seeds and a quarter of the seeds so far.
    """
    sizes = [first]
    while (size := sizes[-1] + first * ceil(sizes[-1] / (4 * first))) <= max_seeds:
        sizes.append(size)
    return sizes


def shares(looks: int) -> Array:
    """Return the share of the significance level that each of the first looks spends; all looks together spend 1."""
    return np.asarray(_SPENT * (1 - _SPENT) ** np.arange(looks))


class Look(NamedTuple):
    """The paired differences at one look, after `n` seeds."""

    n: int
    mean: float
    deviation: float
    """The standard deviation over seeds, but at least the smallest possible change of the metric."""

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return self.deviation / sqrt(self.n)


class PValues(NamedTuple):
    """The p values of a pair over all its looks so far, valid at whichever look the study stops."""

    difference: float
    """Of the paired t test that the mean difference is 0, two-sided."""
    equivalence: float
    """Of two one-sided t tests (Schuirmann 1987) that the mean difference is not within the margin."""


def looks_at(differences: Sequence[float], sizes: Sequence[int], step: float = 0.0) -> list[Look]:
    """Return the looks at those of `sizes` that the differences, one per seed, reach. Each size is at least 2."""
    reached = [size for size in sizes if size <= len(differences)]
    parts = [differences[:size] for size in reached]
    return [Look(len(part), fmean(part), max(stdev(part), step)) for part in parts]


def sequential_p_values(looks: Sequence[Look], margin: float) -> PValues:
    """Return the p values after some looks: the smallest p value, each divided by the share of its look, at most 1.

    A hypothesis is rejected at a level exactly if a look has rejected it at its share of this level. The values are
    ordinary p values for Holm's correction, at whatever look each pair stops.

    Source: Jennison & Turnbull 2000, *Group sequential methods*, chapter 9 (repeated p values).
    """
    found = PValues(1.0, 1.0)
    for look, share in zip(looks, shares(len(looks)), strict=True):
        difference, equivalence = (
            2 * _upper_tail(abs(look.mean), look),
            _upper_tail(margin - abs(look.mean), look),
        )
        found = PValues(min(found.difference, difference / share), min(found.equivalence, equivalence / share))
    return found


def _upper_tail(distance: float, look: Look) -> float:
    """Return the probability that Student's t is above distance / error."""
    if look.error == 0:
        return 0.5 if distance == 0 else float(distance < 0)
    return float(stdtr(look.n - 1, -distance / look.error))


class Verdict(NamedTuple):
    """What is decided about a pair of groups."""

    decision: Decision | None
    """None if the pair is undecided."""
    level: float
    """The smaller of the pair's significance levels in the two families of tests, after Holm's correction."""


def decide(
    pairs: Sequence[Sequence[Look]], margin: float, *, higher_is_better: bool, level: float = LEVEL
) -> list[Verdict]:
    """Decide about the pairs of a study, given the looks at each.

    The tests of a difference and the tests of equivalence are two families, each corrected by Holm's method: in a study
    without differences, any pair is called better or worse with a probability of at most `level`, and any pair that
    differs by the margin or more is called equivalent with a probability of at most `level`. A pair of which both
    are shown, a difference and equivalence, is equivalent.

    Further seeds of one pair never revoke the decision about another.
    """
    p_values = [sequential_p_values(looks, margin) for looks in pairs]
    difference_levels = holm_levels([p.difference for p in p_values], level)
    equivalence_levels = holm_levels([p.equivalence for p in p_values], level)
    verdicts = []
    for looks, p, for_difference, for_equivalence in zip(
        pairs, p_values, difference_levels, equivalence_levels, strict=True
    ):
        decision: Decision | None = None
        if p.equivalence <= for_equivalence:
            decision = "equivalent"
        elif p.difference <= for_difference:
            decision = "better" if (looks[-1].mean > 0) == higher_is_better else "worse"
        verdicts.append(Verdict(decision, min(for_difference, for_equivalence)))
    return verdicts


@dataclass(frozen=True)
class StoppingRule:
    """A pair stops at the first look that decides at this significance level, or else at the last look."""

    sizes: tuple[int, ...]
    """The number of seeds at each look."""
    margin: float
    level: float = LEVEL

    def decides(self, means: Array, deviations: Array) -> NDArray[np.bool_]:
        """Return whether each look decides: means and deviations (R, looks) → (R, looks)."""
        sizes = np.asarray(self.sizes, dtype=float)
        levels = self.level * shares(len(sizes))
        errors = deviations / np.sqrt(sizes)
        differs = np.abs(means) >= stdtrit(sizes - 1, 1 - levels / 2) * errors
        equivalent = self.margin - np.abs(means) >= stdtrit(sizes - 1, 1 - levels) * errors
        return np.asarray(differs | equivalent)


class Interval(NamedTuple):
    """A confidence interval of a mean difference."""

    mean: float
    low: float
    high: float


def corrected_interval(look: Look, rule: StoppingRule, level: float = LEVEL) -> Interval:
    """Return the interval of a mean difference at the look where its pair stopped, with confidence 1 - level.

    Student's interval would contain the true difference less often, since a pair tends to stop when its differences
    happen to be large or similar. This interval contains each θ for which the observed t statistic, at the look where
    the pair stopped, is between the level / 2 and 1 - level / 2 quantiles of what sequences of normal differences with
    mean θ and the observed standard deviation have where they stop. The quantiles are from simulated sequences.

    Source: Chuang & Lai 2000, *Hybrid resampling methods for confidence intervals* (with normal resampling).
    """
    if look.deviation == 0:
        return Interval(look.mean, look.mean, look.mean)
    paths = _simulate_paths(rule.sizes)
    scaled = StoppingRule(rule.sizes, rule.margin / look.deviation, rule.level)
    mean, error = look.mean / look.deviation, 1 / sqrt(look.n)

    def share_beyond(theta: float, side: int) -> float:
        """Return how often the t statistic is as high (side 1) or low (side -1) as the observed one, if θ is true."""
        decided = scaled.decides(theta + paths.means, paths.deviations)
        decided[:, -1] = True
        statistics = np.take_along_axis(paths.statistics, decided.argmax(axis=1)[:, None], axis=1)
        return float(np.mean(side * statistics >= side * (mean - theta) / error))

    ends = []
    for side in (1, -1):
        outer, inner = mean - side * error * 4 * stdtrit(look.n - 1, 1 - level / 2), mean
        for _ in range(14):
            middle = (outer + inner) / 2
            outer, inner = (outer, middle) if share_beyond(middle, side) > level / 2 else (middle, inner)
        ends.append(float(outer + inner) / 2 * look.deviation)
    return Interval(look.mean, *ends)


class _Paths(NamedTuple):
    """Sequences of looks at standard normal differences, each array (R, looks)."""

    means: Array
    deviations: Array
    statistics: Array


@cache
def _simulate_paths(sizes: tuple[int, ...]) -> _Paths:
    draws = np.random.default_rng(0).standard_normal((_PATHS, sizes[-1]))
    counts = np.asarray(sizes, dtype=float)
    means = draws.cumsum(axis=1)[:, np.asarray(sizes) - 1] / counts
    squares = (draws**2).cumsum(axis=1)[:, np.asarray(sizes) - 1]
    deviations = np.sqrt((squares - counts * means**2) / (counts - 1))
    return _Paths(means, deviations, means / deviations * np.sqrt(counts))


def seeds_needed(look: Look, margin: float, level: float, first: int = 5) -> int | None:
    """Predict the number of seeds, in total, at which an undecided pair will be decided.

    Return the median over simulated continuations: mean and standard deviation are drawn from their posterior
    distribution given the differences so far (normal differences, Jeffreys prior), then the differences of further
    seeds. Return None if more than half of the continuations are undecided after 40 looks.
    """
    rng = np.random.default_rng(0)
    spread = look.deviation * np.sqrt((look.n - 1) / rng.chisquare(look.n - 1, _PATHS))
    theta = look.mean + spread / sqrt(look.n) * rng.standard_normal(_PATHS)
    sizes = _many_sizes(first)
    start = sizes.index(look.n)
    total, squares = np.full(_PATHS, look.n * look.mean), np.full(_PATHS, 0.0)
    squares += (look.n - 1) * look.deviation**2 + look.n * look.mean**2
    needed = np.full(_PATHS, inf)
    levels = level * shares(len(sizes))
    for index in range(start + 1, len(sizes)):
        size, added = sizes[index], sizes[index] - sizes[index - 1]
        block = spread * rng.standard_normal(_PATHS) / sqrt(added)
        total += added * (theta + block)
        squares += added * (theta + block) ** 2 + spread**2 * rng.chisquare(added - 1, _PATHS)
        mean = total / size
        error = np.sqrt((squares - size * mean**2) / (size - 1) / size)
        distance = np.maximum(
            np.abs(mean) - stdtrit(size - 1, 1 - levels[index] / 2) * error,
            margin - np.abs(mean) - stdtrit(size - 1, 1 - levels[index]) * error,
        )
        needed[(distance >= 0) & (needed == inf)] = size
        if np.mean(needed < inf) > 0.5:
            return int(np.median(needed))
    return None


@cache
def _many_sizes(first: int) -> list[int]:
    sizes = look_sizes(first, first)
    while len(sizes) < _MAX_LOOKS:
        sizes = look_sizes(2 * sizes[-1], first)
    return sizes[:_MAX_LOOKS]
