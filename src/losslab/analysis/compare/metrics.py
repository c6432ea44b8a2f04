"""By which metrics groups are compared."""

from collections.abc import Sequence

from losslab.analysis.compare.curves import is_loss
from losslab.analysis.compare.grouping import Group
from losslab.errors import LabError

_USUAL = ("accuracy", "nll", "ece", "mse", "mae")


def choose(groups: Sequence[Group], asked: Sequence[str] | None) -> tuple[str, ...]:
    """The metrics that were asked for, or the usual ones of the task, which all groups that have values share.

    Raises:
        LabError: one is not there, is each loss's own, or nothing is shared.
    """
    names = {one.label: own for one in groups if (own := _names(one))}  # some diverged, and have no finite value
    every = [*dict.fromkeys(name for own in names.values() for name in own)]
    if not asked:
        shared = [name for name in every if all(name in own for own in names.values())]
        return _usual(shared) or _refuse(names)
    for metric in asked:
        if metric not in every:
            raise LabError(unknown("metric", metric, offered(groups, every) or "no run is finished"))
        refuse_losses(groups, metric, _usual(every))
    return tuple(dict.fromkeys(asked))


def offered(groups: Sequence[Group], names: Sequence[str]) -> list[str]:
    """Those of these names by which the groups can be compared: without the loss, where losses differ."""
    return [name for name in names if not (is_loss(name) and _losses_differ(groups))]


def unknown(what: str, name: str, known: Sequence[str] | str) -> str:
    """What to say of a metric or curve that is not there: which are, or in words why none is."""
    end = f": {known}" if isinstance(known, str) else f"; there {'is' if len(known) == 1 else 'are'} {', '.join(known)}"
    return f"there is no {what} {name or repr(name)}{end}"


def refuse_losses(groups: Sequence[Group], metric: str, instead: Sequence[str]) -> None:
    """Have nothing compared by the value of the loss, where losses differ.

    Raises:
        LabError: that is what was asked for.
    """
    if is_loss(metric) and _losses_differ(groups):
        end = f"compare by one of {', '.join(instead)}" if instead else "these runs have nothing else to compare by"
        raise LabError(f"{metric} means something else under every loss: {end}")


def _names(group: Group) -> list[str]:
    return [*dict.fromkeys(name for run in group.runs for name in run.metrics if "/" in name)]


def _usual(names: Sequence[str]) -> tuple[str, ...]:
    """Of the test set if it was measured, else of validation or, at last, of training."""
    for split in ("test", "val", "train"):
        found = tuple(f"{split}/{name}" for name in _USUAL if f"{split}/{name}" in names)
        if found:
            return found
    return ()


def _refuse(names: dict[str, list[str]]) -> tuple[str, ...]:
    if not names:
        return ()
    kinds: dict[tuple[str, ...], list[str]] = {}
    for label, own in names.items():
        kinds.setdefault(_usual(own), []).append(label)
    said = "; ".join(f"{', '.join(metrics) or 'none'} of {_some(labels)}" for metrics, labels in kinds.items())
    raise LabError(f"these runs have no metric in common, compare them apart: {said}")


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels) if len(labels) <= 4 else f"{', '.join(labels[:3])} and {len(labels) - 3} more"


def _losses_differ(groups: Sequence[Group]) -> bool:
    return len({_loss(one) for one in groups}) > 1


def _loss(group: Group) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, str(value)) for key, value in group.settings.items() if key.startswith("loss.")))
