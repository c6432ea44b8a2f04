"""What runs went through, epoch by epoch: of each run, and of groups as means with a band."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import isfinite
from statistics import fmean

from losslab import runs
from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.read import Run, read_columns
from losslab.errors import LabError
from losslab.io.untrusted import open_regular_file

_LONGEST = 1 << 20
"""Bytes that the names of the columns of a table may take."""


def is_loss(name: str) -> bool:
    """Whether a quantity is in the unit of each run's own loss."""
    return "loss" in name.split("/")


@dataclass(frozen=True)
class Curve:
    """A value over epochs: the mean of a group's seeds, and the lowest and highest of them."""

    epochs: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    seeds: int


@dataclass
class Histories:
    """The tables of epochs of all runs that count."""

    wanted: tuple[str, ...]
    of: dict[Run, dict[str, list[float]]] = field(default_factory=dict)
    """By run and name the values of all epochs; "step", and "seconds" since the start where they were taken."""
    flaws: list[tuple[str, str]] = field(default_factory=list)
    _curves: dict[tuple[Group, str, bool], Curve | None] = field(default_factory=dict)

    def points(self, run: Run, name: str) -> dict[int, float]:
        """The finite values of a run by epoch: not every epoch is validated."""
        table = self.of.get(run, {})
        pairs = zip(table.get("epoch", ()), table.get(name, ()), strict=False)
        return {int(epoch): value for epoch, value in pairs if isfinite(value)}

    def curve(self, group: Group, name: str, *, relative: bool = False) -> Curve | None:
        """Of the epochs that all seeds have, so that the mean is over the same runs everywhere.

        Args:
            group: whose seeds.
            name: of a column of the history.
            relative: each run divided by its first value. None where that is not above 0.
        """
        asked = (group, name, relative)
        if asked not in self._curves:
            self._curves[asked] = self._curve(*asked)
        return self._curves[asked]

    def _curve(self, group: Group, name: str, relative: bool) -> Curve | None:
        found = [points for run in group.runs if (points := self.points(run, name))]
        if relative:
            starts = [points[min(points)] for points in found]
            if any(start <= 0 for start in starts):
                return None
            found = [
                {at: value / start for at, value in points.items()} for points, start in zip(found, starts, strict=True)
            ]
        shared = sorted(set.intersection(*map(set, found))) if found else []
        if not shared:
            return None
        values = [[points[epoch] for points in found] for epoch in shared]
        mean, low, high = ([how(each) for each in values] for how in (fmean, min, max))
        return Curve(shared, mean, low, high, len(found))

    @property
    def names(self) -> list[str]:
        """Those of the wanted columns that some run has."""
        return [name for name in self.wanted if any(name in table for table in self.of.values())]


def read_histories(groups: Iterable[Group], wanted: Sequence[str]) -> Histories:
    """Read the columns that are wanted. A run without a history has no curves, one with a damaged one is a flaw."""
    found = Histories(tuple(dict.fromkeys(wanted)))
    for run in (run for one in groups for run in one.runs):
        try:
            if run.folder.history.is_file():
                found.of[run] = read_columns(run.folder.history, ("epoch", "step", *found.wanted))
            if run.folder.timing.is_file():
                seconds = read_columns(run.folder.timing, ("seconds",)).get("seconds", [])
                found.of.setdefault(run, {})["seconds"] = [*accumulate(seconds)]
        except LabError as error:
            found.of.pop(run, None)
            found.flaws.append((str(runs.shown(run.folder.path)), f"damaged, left out of the curves: {error}"))
    return found


def history_columns(groups: Iterable[Group]) -> list[str]:
    """All columns that the histories of runs have."""
    names: dict[str, None] = {}
    for run in (run for one in groups for run in one.runs):
        if run.folder.history.is_file():
            with open_regular_file(run.folder.history) as file:
                names |= dict.fromkeys(file.readline(_LONGEST).decode(errors="replace").strip().split(","))
    return [name for name in names if "/" in name and name.isprintable()]
