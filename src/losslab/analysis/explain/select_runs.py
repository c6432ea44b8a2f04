"""Which runs are meant by the folders that a command names. Imports no torch.

Short names for runs that are looked at together. Imports no torch.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from losslab.analysis.compare.grouping import group_runs
from losslab.analysis.compare.read import read_runs
from losslab.errors import LabError
from losslab.runs import RunFolder, display_path

logger = logging.getLogger("losslab")


def runs_named(places: Sequence[Path]) -> list[RunFolder]:
    """Run folders as they are, each once; a folder of runs, such as a sweep, stands for some of those in it.

    Of runs that differ in more than the seed these are the first seed of each configuration; of seeds alone, all.

    Raises:
        LabError: a folder is not there, or holds no finished run.
    """
    runs = [run for place in places for run in ([RunFolder(place)] if _is_one(place) else _of_many(place))]
    return [*{run.path.resolve(): run for run in runs}.values()]


def _is_one(place: Path) -> bool:
    # What is not there is refused by whoever reads the run.
    return not place.is_dir() or RunFolder(place).config.is_file()


def _of_many(place: Path) -> list[RunFolder]:
    found = read_runs([place])
    groups = [one for one in group_runs(found.runs) if one.runs]
    if not groups:
        raise LabError(f"{display_path(place)} holds no run that is finished")
    several = len(groups) > 1
    chosen = [run.folder for one in groups for run in (one.runs[:1] if several else one.runs)]
    said = "the first seed of each configuration" if several else "the seeds of one configuration"
    logger.info("%-11s %d of %d runs: %s", "explained", len(chosen), len(found.runs) + len(found.problems), said)
    return chosen


_GROUPS = ("loss", "optimizer", "scheduler", "model", "data", "noise", "mix", "seed", "trainer")
_MOST = 3


def labels(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Each run's loss, and of runs of one loss the settings that tell them apart: "huber, delta 0.1, seed 1"."""
    names = _told_apart(configs, _GROUPS)
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]


def losses(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Each run's loss; of losses of one name the settings that tell them apart too: "huber, delta 0.1"."""
    return _told_apart(configs, ("loss",))


def settings(config: dict[str, Any], groups: Sequence[str] = _GROUPS) -> Iterator[tuple[str, Any]]:
    """All plain settings by their dotted names, but for those that follow from the seed or the run's name."""
    follow = set(config.get("per_run") or ()) - {"seed"}
    for each in groups:
        for key, value in _leaves(each, config.get(each)):
            if key not in follow:
                yield key, value


def _told_apart(configs: Sequence[dict[str, Any]], groups: Sequence[str]) -> list[str]:
    plain = [_loss(config) for config in configs]
    owned = [dict(settings(config, groups)) for config in configs]
    names = []
    for loss, own in zip(plain, owned, strict=True):
        alike = [other for name, other in zip(plain, owned, strict=True) if name == loss]
        differ = [key for key in own if any(other.get(key) != own[key] for other in alike)]
        names.append(", ".join([loss, *(f"{key.removeprefix('loss.')} {own[key]}" for key in differ[:_MOST])]))
    return names


def _loss(config: dict[str, Any]) -> str:
    choice: str = config["choices"]["loss"]
    return str(config["loss"]["_target_"]).rpartition(".")[2] if choice == "custom" else choice


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, value
