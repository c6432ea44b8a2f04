"""Learning curves of runs and groups, and the time until runs reach a value."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from math import inf, isfinite, isinf
from statistics import fmean, median

import numpy as np

from losslab import runs
from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.read import Column, Run, parse_row, read_columns
from losslab.errors import LabError
from losslab.io.metric_names import direction
from losslab.io.untrusted import open_regular_file

_MAX_HEADER_BYTES = 1 << 20
"""Limit for the length of the first line of history.csv, which may be untrusted."""


def is_loss(name: str) -> bool:
    """Return whether a metric is a loss, whose values can be compared only between runs with the same loss."""
    return "loss" in name.split("/")


@dataclass(frozen=True)
class Curve:
    """The mean, lowest and highest value over the seeds of a group, for each epoch."""

    epochs: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    seeds: int


@dataclass
class Histories:
    """The values of all compared runs over epochs."""

    wanted: tuple[str, ...]
    columns: dict[Run, dict[str, Column]] = field(default_factory=dict)
    """The values of all epochs by run and column: "epoch", "step", `wanted`, and perhaps "seconds" since the start."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """Folder and reason of each run that has no curves because a file is damaged."""

    @property
    def names(self) -> list[str]:
        """The wanted columns that at least one run has."""
        return [name for name in self.wanted if any(name in table for table in self.columns.values())]

    def points(self, run: Run, name: str) -> tuple[Column, Column]:
        """Return the epochs in which a column has a finite value, in ascending order, and these values."""
        table = self.columns.get(run, {})
        if name not in table or "epoch" not in table:
            return np.empty(0), np.empty(0)
        measured = np.isfinite(table[name])
        epochs, values = table["epoch"][measured], table[name][measured]
        if not (epochs[1:] > epochs[:-1]).all():  # of several rows with one epoch, the last counts
            epochs, indices = np.unique(epochs[::-1], return_index=True)
            values = values[::-1][indices]
        return epochs, values

    def curve(self, group: Group, name: str, *, relative: bool = False) -> Curve | None:
        """Average a column over the runs of a group that have it, at the epochs that all of them have.

        With `relative`, the values of each run are divided by the first. Returns None if there are no common epochs, or
        if `relative` is set and a run starts at or below 0.
        """
        series = [points for run in group.runs if (points := self.points(run, name))[0].size]
        common = series[0][0] if series else np.empty(0)
        for epochs, _ in series:
            if not np.array_equal(epochs, common):
                common = np.intersect1d(epochs, common, assume_unique=True)
        if not common.size or (relative and any(values[0] <= 0 for _, values in series)):
            return None
        table = np.stack(
            [values[np.isin(epochs, common)] if epochs.size > common.size else values for epochs, values in series]
        )
        if relative:
            with np.errstate(over="ignore"):
                table /= np.array([[values[0]] for _, values in series])
        mean, low, high = (reduced.tolist() for reduced in (table.mean(axis=0), table.min(axis=0), table.max(axis=0)))
        return Curve(common.astype(int).tolist(), mean, low, high, len(series))


def read_histories(groups: Iterable[Group], wanted: Sequence[str]) -> Histories:
    """Read the columns of each run. A run without history.csv has no curves; damaged files are added to `problems`."""
    histories = Histories(tuple(dict.fromkeys(wanted)))
    for run in (run for group in groups for run in group.runs):
        try:
            if run.folder.history.is_file():
                histories.columns[run] = read_columns(run.folder.history, ("epoch", "step", *histories.wanted))
            if run.folder.timing.is_file():
                seconds = read_columns(run.folder.timing, ("seconds",)).get("seconds", np.empty(0))
                histories.columns.setdefault(run, {})["seconds"] = seconds.cumsum()
        except LabError as error:
            histories.columns.pop(run, None)
            folder = str(runs.display_path(run.folder.path))
            histories.problems.append((folder, f"damaged, left out of the curves: {error}"))
    return histories


def history_columns(groups: Iterable[Group]) -> list[str]:
    """Return the names of all metrics in the history.csv files of these groups."""
    names: dict[str, None] = {}
    for run in (run for group in groups for run in group.runs):
        if run.folder.history.is_file():
            with open_regular_file(run.folder.history) as file:
                names |= dict.fromkeys(parse_row(file.readline(_MAX_HEADER_BYTES).decode(errors="replace").strip()))
    return [name for name in names if name not in {"epoch", "step", "lr"} and name.isprintable()]


@dataclass(frozen=True)
class RunTime:
    """The time at which a run first reached the value of a `TimeToReach`."""

    run: Run
    epoch: float
    """The first epoch at which the run reached the value; infinite if it never did."""
    seconds: float | None
    """The wall time until the end of that epoch; infinite if the run never reached the value, None if not recorded."""


@dataclass(frozen=True, eq=False)
class GroupTime:
    """The times at which the runs of a group first reached the value of a `TimeToReach`."""

    group: Group
    runs: tuple[RunTime, ...]
    """The time of each run that has a history."""
    epochs: int
    """The last epoch in which a run has a value of the metric."""
    seconds: float
    """The wall time of the longest run; 0 if no times were recorded."""

    def cells(self) -> tuple[str, str, str]:
        """Format three cells: how many runs reached the value, and median and range of the epochs and of the seconds.

        A run that did not reach the value counts as longer than the longest run, such as ">20" epochs.
        """
        epochs = [time.epoch for time in self.runs]
        seconds = [time.seconds for time in self.runs if time.seconds is not None]
        return (
            f"{sum(map(isfinite, epochs))} of {len(epochs)}",
            _median_and_range(epochs, "g", f">{self.epochs}"),
            _median_and_range(seconds, ".3g", f">{self.seconds:.3g}"),
        )


@dataclass(frozen=True, eq=False)
class TimeToReach:
    """The times at which all groups reached a value of a metric."""

    metric: str
    value: float
    times: tuple[GroupTime, ...]
    requested: bool = True
    """Whether the caller chose the value; otherwise it is the default of `time_to_reach`."""


def time_to_reach(
    groups: Sequence[Group], histories: Histories, metric: str, value: float | None = None, better: str | None = None
) -> TimeToReach | None:
    """Find when the runs of each group first reach a value; None if no run has a history of the metric.

    The default value is the mean over runs of the best value of each run, in the group in which this mean is worst. It
    is rounded to two digits, towards values that are easier to reach. For `better` see `compare_metric`.
    """
    rising = (better or direction(metric, f"type --metric {metric}=min or {metric}=max")) == "max"
    level = _default_level(groups, histories, metric, rising=rising) if value is None else value
    if level is None:
        return None
    times = tuple(_group_time(group, histories, metric, level, rising=rising) for group in groups)
    return TimeToReach(metric, level, times, value is not None)


def _median_and_range(values: Sequence[float], form: str, never: str) -> str:
    if not values:
        return "–"
    statistics = (min(values), median(values), max(values))
    low, middle, high = (never if isinf(value) else f"{value:{form}}" for value in statistics)
    return middle if low == high else f"{middle} ({low} to {high})"


def _default_level(groups: Sequence[Group], histories: Histories, metric: str, *, rising: bool) -> float | None:
    best, worst = (np.max, min) if rising else (np.min, max)
    means = []
    for group in groups:
        reached = [best(values) for run in group.runs if (values := histories.points(run, metric)[1]).size]
        if reached:
            means.append(fmean(reached))
    if not means:
        return None
    two_digits = Context(prec=2, rounding=ROUND_FLOOR if rising else ROUND_CEILING)
    return float(two_digits.create_decimal(f"{worst(means):.10g}"))  # ten digits remove rounding errors


def _group_time(group: Group, histories: Histories, metric: str, level: float, *, rising: bool) -> GroupTime:
    times, last, longest = [], 0, 0.0
    for run in group.runs:
        epochs, values = histories.points(run, metric)
        if epochs.size:
            reached = epochs[values >= level if rising else values <= level]
            first = int(reached[0]) if reached.size else inf
            columns = histories.columns[run]
            clock = columns.get("seconds", np.empty(0))
            seconds = None if clock.size != columns["epoch"].size else inf
            if seconds is not None and reached.size:
                seconds = float(clock[columns["epoch"] == first][-1])
            times.append(RunTime(run, first, seconds))
            last, longest = max(last, int(epochs[-1])), max([longest, *clock[-1:].tolist()])
    return GroupTime(group, tuple(times), last, longest)
