"""Studies whose runs are drawn instead of trained, so that the true differences between the losses are known."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf
from scipy import stats

from losslab.study import sequential
from losslab.study.race import Outcome, Race, Row
from losslab.study.settings import FIRST_TUNING_SEED, Group, Settings
from losslab.study.stage import Run
from losslab.study.sweeper import Study
from losslab.study.tuning import Tuning

MOST_SEEDS = 600
"""The number of seeds up to which undecided losses are followed."""
_NOISE = {
    "normal": stats.norm(),
    "t3": stats.t(3),
    "skew 1": stats.gamma(4),
    "skew -1": stats.gamma(4),
    "skew 2": stats.expon(),
    "skew -2": stats.expon(),
}
_MARGINS = {"accuracy": 0.005, "nll": math.log1p(0.05)}
"""The default margin of each metric, on the scale of its tests."""
_BASE = {"accuracy": 0.9, "nll": 0.5}
_RATE = 0.01
"""The learning rate of the configuration."""


@dataclass(frozen=True)
class Scenario:
    """The true values of some losses, and how the values of single runs are distributed.

    Values are in margins of equivalence, and higher values are better. They are converted to those of the metric.
    """

    means: tuple[float, ...]
    """The true value of each loss at its best learning rate."""
    spread: float = 1.0
    """The standard deviation of the paired differences between two losses whose scales are 1."""
    noise: tuple[str, ...] = ("normal",)
    """The distribution of the runs around the true value: one for all losses, or one for each."""
    scales: tuple[float, ...] = ()
    """A factor of the standard deviation for each loss; () for 1."""
    metric: str = "accuracy"
    examples: int = 0
    """The number of test examples: accuracies are rounded to multiples of 1 / examples; 0 for no rounding."""
    rates: tuple[float, ...] = ()
    """The decimal logarithm of the best learning rate of each loss, relative to that of the configuration; () for 0."""
    curvature: float = 16.0
    """How many margins a loss is worse one decade away from its best learning rate; it grows with the square."""
    at_best_rates: bool = False
    """Whether the true differences are those at the best learning rates, instead of those at the tuned ones."""
    finalist_seeds: int = 10
    """The number of seeds with which the best trials are repeated."""
    tuning_spread: float = 0.1
    """The standard deviation of the values on the validation data."""
    reference: bool = True
    """Whether the first loss is named as the reference; otherwise it is the best after tuning."""
    diverging: tuple[float, ...] = ()
    """The probability that a run of the race diverges at the best learning rate or above, for each loss; () for 0."""
    posthoc: tuple[float, ...] = ()
    """Methods after training, which are fitted to the runs of the first loss: the change of its true value by each."""
    max_seeds: tuple[int, ...] = (20,)
    """The largest number of seeds of the study, and of each time that it is extended."""
    late: int = 0
    """The number of losses that are added when the study is extended for the last time."""
    follow: bool = False
    """Whether undecided losses get more seeds afterwards, to compare their number with the predicted one."""
    unpaid: bool = False
    """Whether each look and each pair is tested at the whole level of 5 %."""

    def scale(self, loss: int) -> float:
        """Return the standard deviation of the runs of a loss, without the effect of the seed that all losses share."""
        return self.spread / math.sqrt(2) * (self.scales[loss] if self.scales else 1.0)

    def mean(self, loss: int, rate: float) -> float:
        """Return the mean of a loss at a learning rate, before it is rounded to a number of examples."""
        best = self.rates[loss] if self.rates else 0.0
        return self.means[loss] - self.curvature * (math.log10(rate / _RATE) - best) ** 2

    def convert(self, value: float) -> float:
        """Return the value of the metric."""
        margin, base = _MARGINS[self.metric], _BASE[self.metric]
        if self.metric == "nll":
            return base * math.exp(-margin * value)
        exact = base + margin * value
        return round(exact * self.examples) / self.examples if self.examples else exact


@cache
def true_value(scenario: Scenario, loss: int, rate: float) -> float:
    """Return the mean of the values of a loss at a learning rate, in margins."""
    mean = scenario.mean(loss, rate)
    if not scenario.examples:
        return mean
    deviation = math.hypot(scenario.scale(loss), scenario.spread)
    runs = mean + deviation * stats.norm().ppf((np.arange(20_000) + 0.5) / 20_000)
    return (float(np.mean([scenario.convert(run) for run in runs])) - _BASE["accuracy"]) / _MARGINS["accuracy"]


class Runs:
    """Draws the runs of a study: takes the place of both of its stages.

    A run is a function of its loss, learning rate and seed, so that a study that is repeated finds the same runs.
    """

    def __init__(self, scenario: Scenario, number: int) -> None:
        count, rng = len(scenario.means), np.random.default_rng([number, 0])
        self.scenario, self._tuning_rng = scenario, np.random.default_rng([number, 1])
        self._tuned: dict[tuple[str, ...], float] = {}
        self.pace = 1.0
        kinds = scenario.noise * (count if len(scenario.noise) == 1 else 1)
        scales = [[scenario.scale(loss)] for loss in range(count)]
        shared = scenario.spread * rng.standard_normal(MOST_SEEDS)
        self._deviations = shared + scales * np.stack([_draw(kind, rng) for kind in kinds])
        self._diverges = rng.random(self._deviations.shape) < np.array([scenario.diverging or [0.0] * count]).T
        self._posthoc = 0.3 * scenario.spread * rng.standard_normal((len(scenario.posthoc), MOST_SEEDS))

    def compose(self, _: Sequence[str]) -> Any:
        """Return what a study reads of the configuration of a loss."""
        return OmegaConf.create({"optimizer": {"lr": _RATE}, "trainer": {"max_epochs": 1}})

    def choices(self, _: Sequence[str]) -> Mapping[str, str]:
        """Return the choices of the configuration of a loss."""
        return {"loss": "cross_entropy", "model": "simulated", "data": "simulated"}

    def run(self, jobs: Sequence[Sequence[str]], *, is_check: bool = False) -> list[Run]:  # noqa: ARG002
        """Return the runs of some jobs."""
        return [self._run(job) for job in jobs]

    def _run(self, job: Sequence[str]) -> Run:
        chosen = dict(text.split("=") for text in job)
        loss, rate, seed = int(chosen["loss"]), float(chosen["optimizer.lr"]), int(chosen["seed"])
        metric, scenario = self.scenario.metric, self.scenario
        if seed < FIRST_TUNING_SEED:
            best = _RATE * 10 ** (scenario.rates[loss] if scenario.rates else 0.0)
            diverged = self._diverges[loss, seed] and rate > 0.9 * best
            return _run({} if diverged else {f"test/{metric}": scenario.convert(self.value(loss, rate, seed))})
        if tuple(job) not in self._tuned:
            self._tuned[tuple(job)] = scenario.tuning_spread * float(self._tuning_rng.standard_normal())
        value = scenario.mean(loss, rate) + self._tuned[tuple(job)]
        diverged = bool(scenario.diverging) and rate > 10 * _RATE
        return _run({} if diverged else {f"val/{metric}": scenario.convert(value)})

    def value(self, loss: int, rate: float, seed: int) -> float:
        """Return the value of a run of the race, in margins."""
        return self.scenario.mean(loss, rate) + float(self._deviations[loss, seed])

    def posthoc_value(self, method: int, rate: float, seed: int) -> float:
        """Return the value of a method that is fitted to a run of the first loss, in margins."""
        return self.value(0, rate, seed) + self.scenario.posthoc[method] + float(self._posthoc[method, seed])


def _run(metrics: Mapping[str, float]) -> Run:
    return Run(metrics, seconds=1.0, folder=None, config={})


def _draw(kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return random numbers with mean 0 and standard deviation 1, one for each seed."""
    noise = _NOISE[kind]
    drawn = (noise.rvs(MOST_SEEDS, random_state=rng) - noise.mean()) / noise.std()
    return -drawn if "-" in kind else drawn


class SimulatedStudy(Study):
    """A study with simulated runs."""

    def __init__(self, runs: Runs, max_seeds: int, count: int) -> None:
        scenario = runs.scenario
        reference = "loss=0" if scenario.reference else None
        settings = Settings(
            metric=scenario.metric, reference=reference, max_seeds=max_seeds, finalist_seeds=scenario.finalist_seeds
        )
        groups = [Group((f"loss={loss}",), str(loss)) for loss in range(count)]
        super().__init__(settings, groups, Path(), [], {"tune": runs, "race": runs})
        self.runs = runs

    def race(self, tunings: list[Tuning]) -> Race:
        """Run the race with the best learning rates of the tuning."""
        self.tunings = tunings
        return super().race(tunings)

    @property
    def rates(self) -> list[float]:
        """The learning rate of each loss."""
        return [each.best_result.trial["optimizer.lr"] for each in self.tunings if each.best_result is not None]

    def _evaluate(self, race: Race, wanted: Sequence[tuple[int, int]]) -> None:
        for loss, seed in wanted:
            if loss == 0 and self.race_runs[loss, seed].metrics:
                self._add_posthoc(race, seed)

    def _add_posthoc(self, race: Race, seed: int) -> None:
        for method in range(len(self.runs.scenario.posthoc)):
            value = self.runs.scenario.convert(self.runs.posthoc_value(method, self.rates[0], seed))
            race.posthoc_row(0, str(method)).add(seed, value, {})

    def true_difference(self, row: Row, race: Race) -> float:
        """Return the true difference of a row from the reference, in margins."""
        scenario, other = self.runs.scenario, race.rows[race.reference].group
        if scenario.at_best_rates:
            return scenario.means[row.group] - scenario.means[other]
        change = scenario.posthoc[int(row.method)] if row.is_posthoc else 0.0
        own = true_value(scenario, row.group, self.rates[row.group])
        return own + change - true_value(scenario, other, self.rates[other])

    def follow(self, race: Race) -> dict[str, float]:
        """Continue a race until all is decided, and return the number of seeds after which each undecided row was.

        A row that is still undecided after MOST_SEEDS counts as decided there.
        """
        longer = Race(race.scale, race.rows, race.reference, race.first_seeds, MOST_SEEDS)
        undecided, needed, size = longer.undecided(), {}, MOST_SEEDS
        while seeds := longer.next_seeds():
            size = max(max(each) for each in seeds.values()) + 1
            for loss, each in seeds.items():
                for seed in each:
                    value = self.runs.scenario.convert(self.runs.value(loss, self.rates[loss], seed))
                    longer.rows[loss].add(seed, value, {})
            left = longer.undecided()
            needed |= {row.label: size for row in undecided if row not in left}
            undecided = left
        return needed | {row.label: MOST_SEEDS for row in undecided}


class Finding(NamedTuple):
    """What a study says about a pair, next to the truth."""

    verdict: str
    truth: float
    """The true difference from the reference, in margins."""
    low: float
    high: float
    """The ends of the interval, in margins."""
    ratio: float | None = None
    """The predicted number of seeds over the number after which the pair was decided; None if it was not followed."""


def simulate(scenario: Scenario, number: int) -> list[list[Finding]]:
    """Simulate a study, and return what it says about each pair; a list for each time that it is extended."""
    runs, found = Runs(scenario, number), []
    with _without_correction() if scenario.unpaid else nullcontext():
        for max_seeds in scenario.max_seeds:
            count = len(scenario.means) - (scenario.late if max_seeds < scenario.max_seeds[-1] else 0)
            study = SimulatedStudy(runs, max_seeds, count)
            race = study.race(study.tune())
            outcomes = [outcome for outcome in race.outcomes() if outcome.difference is not None]
            needed = study.follow(race) if scenario.follow and max_seeds == scenario.max_seeds[-1] else {}
            found.append([_finding(outcome, study, race, needed) for outcome in outcomes])
    return found


def _finding(outcome: Outcome, study: SimulatedStudy, race: Race, needed: Mapping[str, float]) -> Finding:
    scenario = study.runs.scenario
    margin, (_, low, high) = _MARGINS[scenario.metric], outcome.difference
    if scenario.metric == "nll":
        low, high = -math.log(high), -math.log(low)
    ratio = None
    if outcome.row.label in needed:
        predicted = math.inf if outcome.seeds_needed is None else outcome.pairs + outcome.seeds_needed
        ratio = predicted / needed[outcome.row.label]
    return Finding(outcome.verdict, study.true_difference(outcome.row, race), low / margin, high / margin, ratio)


@contextmanager
def _without_correction() -> Iterator[None]:
    """Test each pair at each look at the whole level."""
    with (
        patch.object(sequential, "shares", np.ones),
        patch.object(sequential, "holm_levels", lambda p_values, level: [level] * len(p_values)),
    ):
        yield
