"""Selection of the runs that `explain` draws, and their labels in figures. Imports no torch."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losslab.analysis.compare.grouping import group_runs
from losslab.analysis.compare.read import read_runs
from losslab.errors import LabError
from losslab.io import conf_groups
from losslab.runs import RunFolder, display_path
from losslab.runs.config import choice_names

logger = logging.getLogger("losslab")
_GROUPS = (*conf_groups.SETTINGS, "seed", "trainer")
_MAX_SETTINGS = 3


def select_runs(paths: Sequence[Path], trusted: Sequence[str] = ()) -> list[RunFolder]:
    """Return the runs to explain, without duplicates. Each path is a run folder or a folder of runs, such as a sweep.

    From a folder of runs, the first seed of each configuration is selected, or all seeds if there is one configuration.
    `trusted` are the packages that the configurations may name, besides those that losslab trusts.

    Raises:
        LabError: a folder does not exist or contains no finished run.
    """
    runs: dict[Path, RunFolder] = {}
    for path in paths:
        # A path that does not exist counts as a run folder, so that reading it raises the error.
        is_run = not path.is_dir() or RunFolder(path).config.is_file()
        for folder in [path] if is_run else _select_from(path):
            runs[folder.resolve()] = RunFolder(folder, tuple(trusted))
    return [*runs.values()]


def _select_from(path: Path) -> list[Path]:
    result = read_runs([path])
    groups = [each for each in group_runs(result.runs) if each.runs]
    if not groups:
        raise LabError(f"{display_path(path)} contains no finished run")
    several = len(groups) > 1
    chosen = [run.folder.path for each in groups for run in (each.runs[:1] if several else each.runs)]
    rule = "the first seed of each configuration" if several else "all seeds of the only configuration"
    logger.info("%-11s %d of %d runs: %s", "explained", len(chosen), len(result.runs) + len(result.problems), rule)
    return chosen


def run_labels(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Return a unique label for each run, such as "huber, delta 0.1, seed 1" (see `distinct_labels`)."""
    names = distinct_labels(configs, _GROUPS)
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]


def settings(config: dict[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    """Return the settings in these config groups, by dotted key, without those derived from the seed or run name."""
    derived = set(config.get("per_run") or ()) - {"seed"}
    leaves = conf_groups.flatten({group: config.get(group) for group in groups})
    return {key: value for key, value in leaves.items() if key not in derived}


def distinct_labels(configs: Sequence[dict[str, Any]], groups: Sequence[str]) -> list[str]:
    """Label each run by its loss, and by those settings of the groups in which runs with the same loss differ."""
    losses = [choice_names(config, config["choices"])["loss"] or "" for config in configs]
    all_settings = [settings(config, groups) for config in configs]
    names = []
    for loss, own in zip(losses, all_settings, strict=True):
        same_loss = [other for name, other in zip(losses, all_settings, strict=True) if name == loss]
        differ = [key for key in own if any(other.get(key) != own[key] for other in same_loss)]
        names.append(", ".join([loss, *(f"{key.removeprefix('loss.')} {own[key]}" for key in differ[:_MAX_SETTINGS])]))
    return names
