"""The runs that `explain` draws for the folders it is given, and their labels in a figure. Imports no torch."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from losslab.analysis.compare.grouping import group_runs
from losslab.analysis.compare.read import read_runs
from losslab.errors import LabError
from losslab.io import conf_groups
from losslab.runs import RunFolder, display_path

logger = logging.getLogger("losslab")
_GROUPS = (*conf_groups.SETTINGS, "mix", "seed", "trainer")
_MAX_SETTINGS = 3


def select_runs(paths: Sequence[Path], trusted: Sequence[str] = ()) -> list[RunFolder]:
    """The runs to explain, each once: run folders themselves, and some runs of each folder of runs, such as a sweep.

    Of a folder of runs these are the first seed of each configuration, or all seeds if there is one configuration.

    Args:
        paths: of run folders, and of folders of runs.
        trusted: packages that the runs' configurations may name, beside those on losslab's list.

    Raises:
        LabError: a folder does not exist or holds no finished run.
    """
    runs: dict[Path, RunFolder] = {}
    for path in paths:
        # A path that does not exist counts as a run: reading it raises.
        is_run = not path.is_dir() or RunFolder(path).config.is_file()
        for folder in [path] if is_run else _select_from(path):
            runs[folder.resolve()] = RunFolder(folder, tuple(trusted))
    return [*runs.values()]


def _select_from(path: Path) -> list[Path]:
    result = read_runs([path])
    groups = [each for each in group_runs(result.runs) if each.runs]
    if not groups:
        raise LabError(f"{display_path(path)} holds no run that is finished")
    several = len(groups) > 1
    chosen = [run.folder.path for each in groups for run in (each.runs[:1] if several else each.runs)]
    rule = "the first seed of each configuration" if several else "all seeds of the one configuration"
    logger.info("%-11s %d of %d runs: %s", "explained", len(chosen), len(result.runs) + len(result.problems), rule)
    return chosen


def run_labels(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Each run's loss, with the settings that distinguish it from runs of the same loss: "huber, delta 0.1, seed 1"."""
    names = _distinct_names(configs, _GROUPS)
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]


def loss_labels(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Each run's loss, with the settings of the loss that distinguish it: "huber, delta 0.1"."""
    return _distinct_names(configs, ("loss",))


def settings(config: dict[str, Any], groups: Sequence[str] = _GROUPS) -> Iterator[tuple[str, Any]]:
    """All scalar settings by their dotted keys, except those that follow from the seed or the run's name."""
    derived = set(config.get("per_run") or ()) - {"seed"}
    for each in groups:
        for key, value in _leaves(each, config.get(each)):
            if key not in derived:
                yield key, value


def _distinct_names(configs: Sequence[dict[str, Any]], groups: Sequence[str]) -> list[str]:
    losses = []
    for config in configs:
        choice = config["choices"]["loss"]
        losses.append(str(config["loss"]["_target_"]).rpartition(".")[2] if choice == "custom" else choice)
    all_settings = [dict(settings(config, groups)) for config in configs]
    names = []
    for loss, own in zip(losses, all_settings, strict=True):
        same_loss = [other for name, other in zip(losses, all_settings, strict=True) if name == loss]
        differ = [key for key in own if any(other.get(key) != own[key] for other in same_loss)]
        names.append(", ".join([loss, *(f"{key.removeprefix('loss.')} {own[key]}" for key in differ[:_MAX_SETTINGS])]))
    return names


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, value
