"""Learning curves of runs and groups, and the time that runs take to reach a value."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import ceil, floor, inf, isfinite, isinf, log10
from operator import ge, le
from statistics import fmean, median

from losslab import runs
from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.read import Run, read_columns
from losslab.errors import LabError
from losslab.io.metric_names import direction
from losslab.io.untrusted import open_regular_file

_LONGEST_HEAD = 1 << 20
"""Bytes of a history's first line that are read."""


def is_loss(name: str) -> bool:
    """Whether a metric is in the unit of each run's own loss."""
    return "loss" in name.split("/")


@dataclass(frozen=True)
class Curve:
    """Mean, lowest and highest value of a group's seeds over epochs."""

    epochs: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    seeds: int


@dataclass
class Histories:
    """Values by epoch of all runs that count."""

    wanted: tuple[str, ...]
    columns: dict[Run, dict[str, list[float]]] = field(default_factory=dict)
    """By run and column name, the values of all epochs; "step", and "seconds" since the start if they were recorded."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """Runs without curves because a file is damaged: which, and why."""

    @property
    def names(self) -> list[str]:
        """Wanted columns that at least one run has."""
        return [name for name in self.wanted if any(name in table for table in self.columns.values())]

    def points(self, run: Run, name: str) -> dict[int, float]:
        """Finite values of a run by epoch: not every epoch is validated."""
        table = self.columns.get(run, {})
        pairs = zip(table.get("epoch", ()), table.get(name, ()), strict=False)
        return {int(epoch): value for epoch, value in pairs if isfinite(value)}

    def curve(self, group: Group, name: str, *, relative: bool = False) -> Curve | None:
        """Curve of a group, over the epochs that all its seeds have, so that every mean is over the same runs.

        Args:
            group: whose runs to average.
            name: of a column of history.csv.
            relative: whether to divide each run by its first value.

        Returns:
            None if there are no common epochs, or with `relative` if a run starts at or below 0.
        """
        runs_points = [points for run in group.runs if (points := self.points(run, name))]
        starts = [points[min(points)] if relative else 1.0 for points in runs_points]
        epochs = sorted(set.intersection(*map(set, runs_points))) if runs_points else []
        if not epochs or any(start <= 0 for start in starts):
            return None
        values = [
            [points[epoch] / start for points, start in zip(runs_points, starts, strict=True)] for epoch in epochs
        ]
        mean, low, high = ([reduce(each) for each in values] for reduce in (fmean, min, max))
        return Curve(epochs, mean, low, high, len(runs_points))


def read_histories(groups: Iterable[Group], wanted: Sequence[str]) -> Histories:
    """Read the wanted columns. A run without a history has no curves; one with a damaged history becomes a problem."""
    histories = Histories(tuple(dict.fromkeys(wanted)))
    for run in (run for group in groups for run in group.runs):
        try:
            if run.folder.history.is_file():
                histories.columns[run] = read_columns(run.folder.history, ("epoch", "step", *histories.wanted))
            if run.folder.timing.is_file():
                seconds = read_columns(run.folder.timing, ("seconds",)).get("seconds", [])
                histories.columns.setdefault(run, {})["seconds"] = [*accumulate(seconds)]
        except LabError as error:
            histories.columns.pop(run, None)
            folder = str(runs.display_path(run.folder.path))
            histories.problems.append((folder, f"damaged, left out of the curves: {error}"))
    return histories


def history_columns(groups: Iterable[Group]) -> list[str]:
    """Names of all metrics in the histories of runs."""
    names: dict[str, None] = {}
    for run in (run for group in groups for run in group.runs):
        if run.folder.history.is_file():
            with open_regular_file(run.folder.history) as file:
                names |= dict.fromkeys(file.readline(_LONGEST_HEAD).decode(errors="replace").strip().split(","))
    return [name for name in names if "/" in name and name.isprintable()]


@dataclass(frozen=True)
class RunTime:
    """When a run first reached the value."""

    run: Run
    epoch: float
    """Infinite if it never did."""
    seconds: float | None
    """Wall time until then; None if it was not recorded."""


@dataclass(frozen=True, eq=False)
class GroupTime:
    """When the runs of a group first reached the value."""

    group: Group
    runs: tuple[RunTime, ...]
    """Of each run with a history."""
    epochs: int
    """Number of epochs of the longest run."""
    seconds: float
    """Wall time of the longest run."""

    def cells(self) -> tuple[str, str, str]:
        """Runs that reached it, epochs and seconds: medians with their range; ">20" if not within 20 epochs."""
        epochs = [time.epoch for time in self.runs]
        seconds = [time.seconds for time in self.runs if time.seconds is not None]
        return (
            f"{sum(map(isfinite, epochs))} of {len(epochs)}",
            _median_and_range(epochs, "g", f">{self.epochs}"),
            _median_and_range(seconds, ".3g", f">{self.seconds:.3g}"),
        )


@dataclass(frozen=True, eq=False)
class TimeToReach:
    """When each group reached a value of a metric."""

    metric: str
    value: float
    groups: tuple[GroupTime, ...]
    requested: bool = True
    """Whether the caller named the value, instead of the default."""


def time_to_reach(
    groups: Sequence[Group], histories: Histories, metric: str, value: float | None = None
) -> TimeToReach | None:
    """When the runs of each group first reach a value; None if no run has a history of the metric.

    Without a value, it is the one that the worst group reaches on average, rounded so that it is easier to reach.
    """
    level = _default_level(groups, histories, metric) if value is None else value
    if level is None:
        return None
    times = tuple(_group_time(group, histories, metric, level) for group in groups)
    return TimeToReach(metric, level, times, value is not None)


def _median_and_range(values: Sequence[float], form: str, never: str) -> str:
    if not values:
        return "–"
    statistics = (min(values), median(values), max(values))
    low, middle, high = (never if isinf(value) else f"{value:{form}}" for value in statistics)
    return middle if low == high else f"{middle} ({low} to {high})"


def _default_level(groups: Sequence[Group], histories: Histories, metric: str) -> float | None:
    rising = direction(metric) == "max"
    best = max if rising else min
    means = []
    for group in groups:
        reached = [best(points.values()) for run in group.runs if (points := histories.points(run, metric))]
        means += [fmean(reached)] if reached else []
    if not means:
        return None
    return _round(min(means) if rising else max(means), down=rising)


def _round(value: float, *, down: bool) -> float:
    """Round down or up to two significant digits."""
    if value == 0:
        return 0.0
    digits = 1 - floor(log10(abs(value)))
    scaled = value * 10.0**digits
    return round((floor(scaled + 1e-9) if down else ceil(scaled - 1e-9)) / 10.0**digits, max(0, digits))


def _group_time(group: Group, histories: Histories, metric: str, level: float) -> GroupTime:
    reached = ge if direction(metric) == "max" else le
    times, epochs, seconds = [], 0, 0.0
    for run in group.runs:
        points = histories.points(run, metric)
        if points:
            first = next((epoch for epoch, value in points.items() if reached(value, level)), inf)
            columns = histories.columns[run]
            clock = columns.get("seconds", [])
            complete = len(clock) == len(columns["epoch"])
            until = inf if isinf(first) else clock[columns["epoch"].index(first)] if complete else None
            times.append(RunTime(run, first, until if complete else None))
            epochs, seconds = max(epochs, *points), max([seconds, *clock[-1:]])
    return GroupTime(group, tuple(times), epochs, seconds)
