"""The results of the tuning: for each group the values of all trials, its best trial, and its range of good rates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite
from statistics import fmean

from losslab.study.settings import Group, Trial


@dataclass(frozen=True)
class TrialResult:
    """A trial and its values on the validation data."""

    trial: Trial
    values: tuple[float | None, ...]
    """One value per seed; None if the run diverged."""
    diverged_in_race: bool = False
    """Whether a run of the race diverged, too."""

    @cached_property
    def mean(self) -> float | None:
        """The mean over the seeds; None if a run diverged, which counts as the worst result."""
        values = [inf if value is None else value for value in self.values]
        return fmean(values) if all(map(isfinite, values)) and not self.diverged_in_race else None


@dataclass(frozen=True)
class Tuning:
    """The tuning of one group."""

    group: Group
    results: tuple[TrialResult, ...]
    """The trials; those of a grid in the order of their rates. The finalists have more seeds than the others."""
    is_grid: bool
    """Whether the trials are a grid of one parameter, so that it has edges."""
    higher_is_better: bool
    ceiling: int | None = None
    """In a grid, the index of the lowest rate at which a run of the race diverged: only lower rates can be the best."""

    @cached_property
    def best(self) -> int | None:
        """The index of the best trial; of trials with equal means, the middle one. None if all trials diverged.

        It is one of those with the most seeds: a mean over fewer seeds may be higher by chance.
        """
        most = max((len(self.results[index].values) for index in self._scores), default=0)
        scores = {index: score for index, score in self._scores.items() if len(self.results[index].values) == most}
        equal = [index for index, score in scores.items() if score == max(scores.values())]
        return equal[(len(equal) - 1) // 2] if equal else None

    @cached_property
    def _scores(self) -> dict[int, float]:
        """The mean of each trial that may be the best by its index; higher scores are better."""
        sign = 1 if self.higher_is_better else -1
        means = {index: result.mean for index, result in enumerate(self.results[: self.ceiling])}
        return {index: sign * mean for index, mean in means.items() if mean is not None}

    def finalists(self, count: int) -> list[Trial]:
        """Return the best trials, of equal ones those next to the best; none if there is nothing to choose from."""
        if self.best is None or len(self._scores) < 2:
            return []
        middle = self.best
        ranked = sorted(self._scores, key=lambda index: (-self._scores[index], abs(index - middle)))
        return [self.results[index].trial for index in ranked[:count]]

    @property
    def best_result(self) -> TrialResult | None:
        """The best trial; None if all trials diverged."""
        return None if self.best is None else self.results[self.best]

    @property
    def edge(self) -> int:
        """The end of the grid at which the best trial is: -1 (lowest rate), 1 (highest rate), or 0 for neither.

        If all trials diverged, the best rate is assumed to be below the grid.
        """
        if not self.is_grid or len(self.results) < 2:
            return 0
        if self.best is None or self.best == 0:
            return -1
        return int(self.best == len(self.results) - 1)

    def without_best(self) -> "Tuning":
        """Return the tuning after the best trial has diverged in the race, so that the next best one is the best.

        In a grid, it is the best of the lower rates.
        """
        changed = [
            replace(result, diverged_in_race=True) if index == self.best else result
            for index, result in enumerate(self.results)
        ]
        return replace(self, results=tuple(changed), ceiling=self.best if self.is_grid else None)

    def good_range(self, margin: float, *, as_ratio: bool) -> tuple[Trial, Trial] | None:
        """Return the lowest and highest of the neighbouring trials around the best that are worse by at most a margin.

        The margin is a difference, or with `as_ratio` a fraction of the best mean. Means are compared over the seeds
        that both trials have. None if there is no grid.
        """
        if not self.is_grid or self.best is None:
            return None
        best = [value for value in self.results[self.best].values if value is not None]
        sign = 1 if self.higher_is_better else -1

        def is_good(index: int) -> bool:
            result = self.results[index] if 0 <= index < len(self.results) else None
            if result is None or result.mean is None:
                return False
            common = fmean(best[: len(result.values)])
            return sign * (common - result.mean) <= (margin * abs(common) if as_ratio else margin)

        low = high = self.best
        while is_good(low - 1):
            low -= 1
        while is_good(high + 1):
            high += 1
        return self.results[low].trial, self.results[high].trial


def sides_to_extend(tunings: Sequence[Tuning]) -> list[int]:
    """Return the ends at which the grids of all groups are extended: those where the best rate of any group is."""
    return sorted({tuning.edge for tuning in tunings} - {0})


def format_trial(trial: Trial) -> str:
    """Return the values of a trial as overrides, such as "optimizer.lr=0.02"."""
    return ", ".join(f"{key}={value:g}" for key, value in trial.items())
