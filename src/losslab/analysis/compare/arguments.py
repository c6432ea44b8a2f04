"""Validation of the arguments of `compare`: types before anything is read, names against the runs that were read."""

from collections.abc import Iterable, Sequence
from math import inf, isfinite
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

from losslab.analysis.compare.curves import history_columns, is_loss
from losslab.analysis.compare.grouping import Group, labels_by_value, matches, shorten
from losslab.errors import LabError

_DEFAULT_METRICS = ("accuracy", "nll", "ece", "mse", "mae")


def check_folders(folders: object) -> list[Path]:
    """Convert one path or several to a list. Raises LabError for anything else."""
    paths = _as_list(folders, str | PathLike)
    if not paths:
        raise LabError(f"folders must be one or more paths of runs or of folders above them, got {folders!r:.60}")
    return [Path(path) for path in paths]


def check_names(argument: str, names: object) -> list[str] | None:
    """Convert one string or several to a list; None stays None. Raises LabError for anything else."""
    if names is None:
        return None
    strings = _as_list(names, str)
    if strings is None:
        raise LabError(f"{argument} must be one or more strings, got {names!r:.60}")
    return strings


def check_reach(reach: object) -> tuple[str, float | None] | None:
    """Check a pair of a metric and a finite value or None; None stays None. Raises LabError for anything else."""
    match reach:
        case None:
            return None
        case [str(metric), None]:
            return metric, None
        case [str(metric), value]:
            level = _to_float(value)
            if isfinite(level):
                return metric, level
            raise LabError(
                f"the value to reach in {metric} must be a finite number, such as {metric}=0.6, got {value!r:.60}"
            )
    raise LabError(f'reach must be a curve and a value, such as ("val/accuracy", 0.6), got {reach!r:.60}')


def choose_metrics(groups: Sequence[Group], requested: Sequence[str] | None) -> tuple[str, ...]:
    """The requested metrics, or the default metrics that all groups with values share.

    Raises:
        LabError: a metric does not exist, is a loss that means something else in each group, or none is shared.
    """
    by_group = {
        group.label: [*dict.fromkeys(name for run in group.runs for name in run.metrics if "/" in name)]
        for group in groups
    }
    by_group = {label: names for label, names in by_group.items() if names}  # without groups that all diverged
    every = [*dict.fromkeys(name for names in by_group.values() for name in names)]
    if requested:
        for metric in requested:
            _check_name("metric", metric, every, groups, _defaults(every), "no run is finished")
        return tuple(dict.fromkeys(requested))
    shared = _defaults([name for name in every if all(name in names for names in by_group.values())])
    if by_group and not shared:
        metrics = labels_by_value((", ".join(_defaults(names)) or "none", label) for label, names in by_group.items())
        each = "; ".join(f"{names} of {shorten(labels)}" for names, labels in metrics.items())
        raise LabError(f"these runs have no metric in common, compare them apart: {each}")
    return shared


def check_curve(groups: Sequence[Group], metric: str, instead: Sequence[str]) -> None:
    """Refuse a curve that no history has, and a loss that means something else in each group, suggesting `instead`."""
    _check_name("curve", metric, history_columns(groups), groups, instead, "no run kept a history")


def find_baseline(groups: Sequence[Group], values: Sequence[str]) -> Group:
    """The one group with these values: ["loss=focal", "loss.gamma=2"].

    Raises:
        LabError: no group or several groups have them.
    """
    parts = " ".join(values).split()
    pairs = dict(part.partition("=")[::2] for part in parts)
    if not pairs or not all("=" in part for part in parts):
        raise LabError(f"a baseline is named by its values, such as loss=cross_entropy, got {' '.join(values)!r}")
    if len(pairs) < len(parts):
        keys = [part.partition("=")[0] for part in parts]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise LabError(
            f"baseline {' '.join(parts)} names {twice} more than once: there is one baseline, name its value once"
        )
    matching = [group for group in groups if matches(group.settings, pairs)]
    if len(matching) == 1:
        return matching[0]
    what = "is in several groups, add what tells them apart" if matching else "is in no group; there are"
    raise LabError(f"baseline {' '.join(values)} {what}: {'; '.join(group.label for group in matching or groups)}")


def _as_list(value: object, kind: Any) -> list[Any] | None:
    """Convert one object of a kind or several to a list; None for anything else."""
    several = [*value] if isinstance(value, Iterable) and not isinstance(value, kind) else [value]
    return several if all(isinstance(one, kind) for one in several) else None


def _to_float(value: object) -> float:
    """Convert to float; infinity for anything that is no number, or overflows."""
    try:
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else inf
    except OverflowError:
        return inf


def _defaults(names: Sequence[str]) -> tuple[str, ...]:
    """Default metrics on the test set; if there are none, on validation; if there are none, on training."""
    for split in ("test", "val", "train"):
        found = tuple(f"{split}/{name}" for name in _DEFAULT_METRICS if f"{split}/{name}" in names)
        if found:
            return found
    return ()


def _check_name(
    what: str, name: str, available: Sequence[str], groups: Sequence[Group], instead: Sequence[str], none: str
) -> None:
    """Refuse a name that does not exist, and a loss that means something else in each group."""
    losses = {
        tuple(sorted((key, str(value)) for key, value in group.settings.items() if key.startswith("loss.")))
        for group in groups
    }
    comparable = [each for each in available if len(losses) < 2 or not is_loss(each)]
    if name not in available:
        verb = "is" if len(comparable) == 1 else "are"
        there_are = f"; there {verb} {', '.join(comparable)}" if comparable else f": {none}"
        raise LabError(f"there is no {what} {name or repr(name)}{there_are}")
    if name not in comparable:
        advice = f"compare by one of {', '.join(instead)}" if instead else "these runs have nothing else to compare by"
        raise LabError(f"{name} means something else under every loss: {advice}")
