"""Validation of the arguments of `compare`: types before anything is read, names against the runs that were read."""

from collections.abc import Iterable, Sequence
from math import inf, isfinite
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

from losslab.analysis.compare.curves import history_columns, is_loss
from losslab.analysis.compare.differences import SCALES
from losslab.analysis.compare.grouping import Group, matches, shorten
from losslab.errors import LabError

_DEFAULT_METRICS = ("accuracy", "nll", "ece", "mse", "mae")


def check_folders(folders: object) -> list[Path]:
    """One path or several → a list.

    Raises:
        LabError: something else, or no path.
    """
    several = _as_list(folders, str | PathLike)
    paths = [Path(one) for one in several if isinstance(one, str | PathLike)]
    if not paths or len(paths) < len(several):
        raise LabError(f"folders must be one or more paths of runs or of folders above them, got {folders!r:.60}")
    return paths


def check_names(argument: str, names: object) -> list[str] | None:
    """One text or several → a list; None stays None.

    Raises:
        LabError: something else.
    """
    if names is None:
        return None
    several = _as_list(names, str) if isinstance(names, Iterable) else [names]
    strings = [one for one in several if isinstance(one, str)]
    if len(strings) < len(several):
        raise LabError(f"{argument} must be one or more strings, got {names!r:.60}")
    return strings


def check_reach(reach: object) -> tuple[str, float | None] | None:
    """A pair of a metric and a finite value or None; None stays None.

    Raises:
        LabError: something else.
    """
    if reach is None:
        return None
    pair = reach if isinstance(reach, Sequence) and len(reach) == 2 and not isinstance(reach, str) else (None, None)
    metric, value = pair
    if not isinstance(metric, str):
        raise LabError(f'reach must be a curve and a value, such as ("val/accuracy", 0.6), got {reach!r:.60}')
    if value is None:
        return metric, None
    level = _to_float(value)
    if not isfinite(level):
        raise LabError(
            f"the value to reach in {metric} must be a finite number, such as {metric}=0.6, got {value!r:.60}"
        )
    return metric, level


def check_scale(scale: object) -> None:
    """Refuse an unknown scale.

    Raises:
        LabError: it is none of `SCALES`.
    """
    if scale not in SCALES:
        raise LabError(f"there is no scale {scale!r:.60}; there are {', '.join(SCALES)}")


def choose_metrics(groups: Sequence[Group], requested: Sequence[str] | None) -> tuple[str, ...]:
    """The requested metrics, or the default metrics that all groups with values share.

    Raises:
        LabError: a metric does not exist, is a loss that means something else in each group, or none is shared.
    """
    # A group whose runs all diverged has no finite value.
    by_group = {group.label: names for group in groups if (names := _metric_names(group))}
    every = [*dict.fromkeys(name for names in by_group.values() for name in names)]
    if requested:
        for metric in requested:
            if metric not in every:
                _refuse_unknown("metric", metric, _comparable(groups, every), "no run is finished")
            _refuse_losses(groups, metric, _defaults(every))
        return tuple(dict.fromkeys(requested))
    shared = [name for name in every if all(name in names for names in by_group.values())]
    if by_group and not _defaults(shared):
        _refuse_unshared(by_group)
    return _defaults(shared)


def check_curve(groups: Sequence[Group], metric: str, instead: Sequence[str]) -> None:
    """Refuse a curve to reach a value in that cannot be compared.

    Args:
        groups: whose histories to look in.
        metric: of the histories.
        instead: metrics to suggest in place of a loss.

    Raises:
        LabError: no history has it, or it is a loss that means something else in each group.
    """
    _refuse_losses(groups, metric, instead)
    columns = history_columns(groups)
    if metric not in columns:
        _refuse_unknown("curve", metric, _comparable(groups, columns), "no run kept a history")


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
        twice = next(key for key in pairs if sum(part.partition("=")[0] == key for part in parts) > 1)
        raise LabError(
            f"baseline {' '.join(parts)} names {twice} more than once: there is one baseline, name its value once"
        )
    matching = [group for group in groups if matches(group.settings, pairs)]
    if len(matching) == 1:
        return matching[0]
    what = "is in several groups, add what tells them apart" if matching else "is in no group; there are"
    raise LabError(f"baseline {' '.join(values)} {what}: {'; '.join(group.label for group in matching or groups)}")


def _as_list(value: object, kind: Any) -> list[object]:
    return [value] if isinstance(value, kind) else [*value] if isinstance(value, Iterable) else []


def _to_float(value: object) -> float:
    """Convert to float; infinity for anything that is no number, or overflows."""
    try:
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else inf
    except OverflowError:
        return inf


def _metric_names(group: Group) -> list[str]:
    return [*dict.fromkeys(name for run in group.runs for name in run.metrics if "/" in name)]


def _defaults(names: Sequence[str]) -> tuple[str, ...]:
    """Default metrics on the test set; if there are none, on validation; if there are none, on training."""
    for split in ("test", "val", "train"):
        found = tuple(f"{split}/{name}" for name in _DEFAULT_METRICS if f"{split}/{name}" in names)
        if found:
            return found
    return ()


def _comparable(groups: Sequence[Group], names: Sequence[str]) -> list[str]:
    """Names by which the groups can be compared: without losses, if the losses differ."""
    return [name for name in names if not (is_loss(name) and _losses_differ(groups))]


def _losses_differ(groups: Sequence[Group]) -> bool:
    losses = {
        tuple(sorted((key, str(value)) for key, value in group.settings.items() if key.startswith("loss.")))
        for group in groups
    }
    return len(losses) > 1


def _refuse_unknown(what: str, name: str, available: Sequence[str], none: str) -> NoReturn:
    there_are = f"; there {'is' if len(available) == 1 else 'are'} {', '.join(available)}" if available else f": {none}"
    raise LabError(f"there is no {what} {name or repr(name)}{there_are}")


def _refuse_losses(groups: Sequence[Group], metric: str, instead: Sequence[str]) -> None:
    if is_loss(metric) and _losses_differ(groups):
        advice = f"compare by one of {', '.join(instead)}" if instead else "these runs have nothing else to compare by"
        raise LabError(f"{metric} means something else under every loss: {advice}")


def _refuse_unshared(by_group: dict[str, list[str]]) -> NoReturn:
    labels_of: dict[tuple[str, ...], list[str]] = {}
    for label, names in by_group.items():
        labels_of.setdefault(_defaults(names), []).append(label)
    each = "; ".join(f"{', '.join(metrics) or 'none'} of {shorten(labels)}" for metrics, labels in labels_of.items())
    raise LabError(f"these runs have no metric in common, compare them apart: {each}")
