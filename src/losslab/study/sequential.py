"""Tests of paired differences that are repeated as seeds are added: better, worse, equivalent, or undecided.

A pair of groups is tested when it has 5, 10, 15, ... common seeds, until it is decided. Each of these looks spends a
quarter of the significance level that is left, so the looks together spend no more than the level (Bonferroni), however
many follow. Therefore a study may be extended later.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, inf, sqrt
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
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
    is_higher: bool
    """Whether the mean difference is above 0 at the look with the smallest p value of a difference."""


class Levels(NamedTuple):
    """The significance levels of a pair in the two families of tests."""

    difference: float
    equivalence: float


def looks_at(differences: Sequence[float], sizes: Sequence[int], step: float = 0.0) -> list[Look]:
    """Return the looks at those of `sizes` that the differences, one per seed, reach. Each size is at least 2."""
    values = np.array(differences)
    parts = [values[:size] for size in sizes if size <= len(values)]
    # The deviations from the first value are exactly 0 if all values are equal.
    return [Look(len(part), float(part.mean()), max(float((part - part[0]).std(ddof=1)), step)) for part in parts]


def sequential_p_values(looks: Sequence[Look], margin: float) -> PValues:
    """Return the p values after some looks: the smallest p value, each divided by the share of its look, at most 1.

    A hypothesis is rejected at a level exactly if a look has rejected it at its share of this level. The values are
    ordinary p values for Holm's correction, at whatever look each pair stops.

    Source: Jennison & Turnbull 2000, *Group sequential methods*, chapter 9 (repeated p values).
    """
    found = PValues(1.0, 1.0, is_higher=False)
    for look, share in zip(looks, shares(len(looks)), strict=True):
        difference = 2 * _upper_tail(abs(look.mean), look) / share
        equivalence = _upper_tail(margin - abs(look.mean), look) / share
        if difference < found.difference:
            found = found._replace(difference=difference, is_higher=look.mean > 0)
        found = found._replace(equivalence=min(found.equivalence, equivalence))
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
    levels: Levels
    """The significance levels of the pair after Holm's correction."""


def decide(
    pairs: Sequence[Sequence[Look]], margin: float, *, higher_is_better: bool, level: float = LEVEL
) -> list[Verdict]:
    """Decide about the pairs of a study, given the looks at each.

    The tests of a difference and the tests of equivalence are two families, each corrected by Holm's method: in a study
    without differences, any pair is called better or worse with a probability of at most `level`, and any pair that
    differs by the margin or more is called equivalent with a probability of at most `level`. A pair of which both
    are shown, a difference and equivalence, is equivalent.

    Further seeds never revoke a decision, neither those of the pair nor those of another. But "better" or "worse" may
    become "equivalent".
    """
    p_values = [sequential_p_values(looks, margin) for looks in pairs]
    levels = map(
        Levels,
        holm_levels([p.difference for p in p_values], level),
        holm_levels([p.equivalence for p in p_values], level),
    )
    return [Verdict(_decision(p, each, higher_is_better), each) for p, each in zip(p_values, levels, strict=True)]


def _decision(p: PValues, levels: Levels, higher_is_better: bool) -> Decision | None:
    if p.equivalence <= levels.equivalence:
        return "equivalent"
    if p.difference <= levels.difference:
        return "better" if p.is_higher == higher_is_better else "worse"
    return None


@dataclass(frozen=True)
class StoppingRule:
    """A pair stops at the first look that decides at its significance levels, or else at the last look."""

    sizes: tuple[int, ...]
    """The number of seeds at each look."""
    margin: float
    levels: Levels

    def bounds(self, deviations: Array) -> tuple[Array, Array]:
        """Return between which distances of the mean from 0 the looks are undecided: deviations (looks, ...) → same."""
        shape = (len(deviations), *[1] * (deviations.ndim - 1))
        sizes, share = np.reshape(self.sizes[: len(deviations)], shape), shares(len(deviations)).reshape(shape)
        errors = deviations / np.sqrt(sizes)
        equivalent = self.margin - stdtrit(sizes - 1.0, 1 - self.levels.equivalence * share) * errors
        return equivalent, stdtrit(sizes - 1.0, 1 - self.levels.difference * share / 2) * errors

    def stop(self, looks: Sequence[Look]) -> Look:
        """Return the look at which a pair stops: the first that decides, or else the last so far."""
        lower, upper = self.bounds(np.array([look.deviation for look in looks]))
        distances = np.abs([look.mean for look in looks])
        decides = (distances <= lower) | (distances >= upper)
        return looks[int(decides.argmax())] if decides.any() else looks[-1]


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
    lower, upper = replace(rule, margin=rule.margin / look.deviation).bounds(paths.deviations)
    mean, error = look.mean / look.deviation, 1 / sqrt(look.n)

    def excess(theta: float, side: int) -> float:
        """Return how often the t statistic is as high (side 1) or low (side -1) as observed, minus level / 2."""
        beyond = side * paths.statistics >= side * (mean - theta) / error
        distances = np.abs(theta + paths.means)
        goes_on = (distances > lower) & (distances < upper)
        count, going = 0, np.ones(_PATHS, dtype=bool)
        for index in range(len(beyond) - 1):
            count += int(np.count_nonzero(beyond[index] & going & ~goes_on[index]))
            going &= goes_on[index]
        return (count + np.count_nonzero(beyond[-1] & going)) / _PATHS - level / 2

    # A sequence with a mean that far from 0 stops at the first look, which has the fewest degrees of freedom.
    width = 4 * error * float(stdtrit(rule.sizes[0] - 1, 1 - level / 2))
    low, high = (brentq(excess, mean - side * width, mean, (side,), xtol=1e-3 * error) for side in (1, -1))
    return Interval(look.mean, low * look.deviation, high * look.deviation)


class _Paths(NamedTuple):
    """Sequences of looks at standard normal differences, each array (looks, R)."""

    means: Array
    deviations: Array
    statistics: Array


@cache
def _simulate_paths(sizes: tuple[int, ...]) -> _Paths:
    draws = np.random.default_rng(0).standard_normal((_PATHS, sizes[-1])).T
    counts, ends = np.array(sizes, dtype=float)[:, None], np.array(sizes) - 1
    means = draws.cumsum(axis=0)[ends] / counts
    squares = (draws**2).cumsum(axis=0)[ends]
    deviations = np.sqrt((squares - counts * means**2) / (counts - 1))
    return _Paths(means, deviations, means / deviations * np.sqrt(counts))


def seeds_needed(look: Look, margin: float, levels: Levels, first: int = 5) -> int | None:
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
    share = shares(len(sizes))
    for index in range(start + 1, len(sizes)):
        size, added = sizes[index], sizes[index] - sizes[index - 1]
        block = spread * rng.standard_normal(_PATHS) / sqrt(added)
        total += added * (theta + block)
        squares += added * (theta + block) ** 2 + spread**2 * rng.chisquare(added - 1, _PATHS)
        mean = total / size
        error = np.sqrt((squares - size * mean**2) / (size - 1) / size)
        distance = np.maximum(
            np.abs(mean) - stdtrit(size - 1, 1 - levels.difference * share[index] / 2) * error,
            margin - np.abs(mean) - stdtrit(size - 1, 1 - levels.equivalence * share[index]) * error,
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
