"""How long runs take to reach a value of a metric; and how many never do."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, isinf, log10
from statistics import fmean, median

from losslab.analysis.compare.curves import Histories
from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.read import Run
from losslab.io.metric_names import direction


@dataclass(frozen=True)
class Arrival:
    """When a run reached it."""

    run: Run
    epoch: float
    """Infinite where it was never reached."""
    seconds: float | None
    """Wall time until then; None where it was not taken."""


@dataclass(frozen=True, eq=False)
class Reached:
    """When the runs of a group reached it."""

    group: Group
    arrivals: tuple[Arrival, ...]
    """Of each run with a history."""
    longest: int
    """The epochs of the longest run."""
    last: float
    """The wall time of the longest run."""

    @property
    def count(self) -> int:
        """How many runs reached it."""
        return sum(not isinf(one.epoch) for one in self.arrivals)


@dataclass(frozen=True, eq=False)
class Reach:
    """A value that is to be reached, and who did."""

    metric: str
    value: float
    groups: tuple[Reached, ...]
    asked: bool = True
    """Whether the value was asked for, and not found in the data."""


def reach(groups: Sequence[Group], found: Histories, metric: str, value: float | None = None) -> Reach | None:
    """Who reached it when; None where no run has a history of this metric.

    Args:
        groups: in the order of the answer.
        found: their histories.
        metric: of the history.
        value: None for what the group that comes least far reaches on average, rounded to where it is reached sooner.
    """
    level = _level(groups, found, metric) if value is None else value
    if level is None:
        return None
    return Reach(metric, level, tuple(_reached(one, found, metric, level) for one in groups), value is not None)


def words(reached: Reached) -> tuple[str, str, str]:
    """How many of how many; epochs; seconds: the median, and the range of several. ">20": not within 20 epochs."""
    epochs = [one.epoch for one in reached.arrivals]
    seconds = [one.seconds for one in reached.arrivals if one.seconds is not None]
    count = f"{reached.count} of {len(epochs)}"
    return count, _range(epochs, "g", f">{reached.longest}"), _range(seconds, ".3g", f">{reached.last:.3g}")


def _range(values: Sequence[float], form: str, never: str) -> str:
    if not values:
        return "–"
    asked = (min(values), median(values), max(values))
    low, middle, high = (never if isinf(value) else f"{value:{form}}" for value in asked)
    return middle if low == high else f"{middle} ({low} to {high})"


def _level(groups: Sequence[Group], found: Histories, metric: str) -> float | None:
    more = direction(metric) == "max"
    best = max if more else min
    ends = []
    for one in groups:
        reached = [best(points.values()) for run in one.runs if (points := found.points(run, metric))]
        ends += [fmean(reached)] if reached else []
    if not ends:
        return None
    return _rounded(min(ends) if more else max(ends), down=more)


def _rounded(value: float, *, down: bool) -> float:
    """To two digits, so that it is easier to reach and not harder."""
    if value == 0:
        return 0.0
    digits = 1 - floor(log10(abs(value)))
    scaled = value * 10.0**digits
    return round((floor(scaled + 1e-9) if down else ceil(scaled - 1e-9)) / 10.0**digits, max(0, digits))


def _reached(group: Group, found: Histories, metric: str, level: float) -> Reached:
    more = direction(metric) == "max"
    arrivals, longest, last = [], 0, 0.0
    for run in group.runs:
        points = found.points(run, metric)
        if points:
            first = next((at for at, value in points.items() if (value >= level if more else value <= level)), None)
            arrivals.append(Arrival(run, inf if first is None else first, _seconds(run, found, first)))
            longest, last = max(longest, *points), max([last, *found.of[run].get("seconds", ())[-1:]])
    return Reached(group, tuple(arrivals), longest, last)


def _seconds(run: Run, found: Histories, epoch: int | None) -> float | None:
    times = found.of[run].get("seconds", [])
    numbers = [int(number) for number in found.of[run]["epoch"]]
    if len(times) != len(numbers):
        return None
    return inf if epoch is None else times[numbers.index(epoch)]
