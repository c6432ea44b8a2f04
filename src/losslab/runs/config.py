"""What the config.json of a run must hold.

The settings by which runs are told apart, where their hyper-parameters are shown side by side.

Whether two configurations are of the same run: of those settings that can change a result. Imports no torch.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from losslab import runs
from losslab.io import conf_groups

_SETTINGS = (*conf_groups.REQUIRED, "choices")
_MADE = tuple(group for group in conf_groups.REQUIRED if group != "scheduler")  # which holds one in scheduler.scheduler
_OPTIONAL = ("callbacks", "logger", *conf_groups.UNSET)


def amiss(config: Any) -> str | None:
    """What keeps this from being the configuration of a run; None if nothing that is seen from here does."""
    return next(_complaints(config), None)


def _complaints(config: Any) -> Iterator[str]:
    """Each looks only at what those before it have found to be there."""
    if not isinstance(config, dict):
        yield "it holds no settings by name"
    lacking = [key for key in ("seed", "name", *_SETTINGS) if key not in config]
    if lacking:
        yield f"it lacks {', '.join(lacking)}"
    plain = [key for key in _SETTINGS if not isinstance(config[key], dict)]
    plain += [key for key in _OPTIONAL if not isinstance(config.get(key), dict | None)]
    yield from (f"its {key} holds no settings by name" for key in plain)
    unnamed = (key for key in _MADE if not isinstance(config[key].get("_target_"), str))
    yield from (f"its {key} does not say what it is (_target_)" for key in unnamed)
    if not isinstance(config["seed"], int) or isinstance(config["seed"], bool):
        yield "its seed is no whole number"
    if not all(
        choice is None or (isinstance(choice, str) and choice.isprintable()) for choice in config["choices"].values()
    ):
        yield "its choices are no names by group"
    follow = config.get("per_run", [])
    if not isinstance(follow, list) or not all(isinstance(key, str) for key in follow):
        yield "its per_run is no list of keys"
    inside = (("choices", "loss"), ("scheduler", "scheduler"), ("scheduler", "interval"))
    yield from (f"it lacks {group}.{key}" for group, key in inside if key not in config[group])


_TOLD_APART_BY = (("data", "batch_size"), ("trainer", "max_epochs"), ("trainer", "precision"))


def hparams(config: dict[str, Any]) -> dict[str, Any]:
    """Of a configuration: the choices, and the numbers of loss, optimizer, data and trainer."""
    table = {group: choice for group, choice in config["choices"].items() if choice is not None}
    table["seed"] = config["seed"]
    parts = {group: config.get(group) or {} for group in ("loss", "optimizer", *conf_groups.CORRUPTIONS)}
    numbers = {f"{group}.{key}": value for group, part in parts.items() for key, value in part.items()}
    chosen = {f"{group}.{key}": config[group].get(key) for group, key in _TOLD_APART_BY}
    plain = {key: value for key, value in (numbers | chosen).items() if isinstance(value, int | float | str)}
    return table | {key: value for key, value in plain.items() if "._" not in key and not key.endswith(".seed")}


MAY_DIFFER = ("data.dir", "data.workers", "trainer.enable_progress_bar", "traceback", "trust")
"""What may be said anew when a run is resumed, since it changes no result."""

_FOLLOWS = ("run_dir", "per_run", "choices", "made_with", "optimized_metric")
"""What only says where, by whom and under which names a run is made, or what is to be told of it."""


def identity(config: Mapping[str, Any]) -> str:
    """What stays of a resolved configuration without what changes no result: the same text for the same run.

    The run folder may be any: whatever lies in it is written as if it were the same for all. Of a folder of images
    the place counts, as that says which images they are.

    Args:
        config: as `cli.resolve` returns it, or as a config.json holds it.
    """
    plain = json.loads(runs.to_json(config))
    places = (config.get("choices") or {}).get("data") == "image_folder"
    for key in (*_FOLLOWS, *MAY_DIFFER):
        group, _, name = key.rpartition(".")
        inside = plain.get(group) if group else plain
        if isinstance(inside, dict) and not (places and key == "data.dir"):
            inside.pop(name, None)
    return _anywhere(plain, str(config["run_dir"]))


def exactly(config: Mapping[str, Any]) -> str:
    """As `identity`, with all that was asked for: tells jobs apart that differ in what changes no result."""
    plain = json.loads(runs.to_json(config))
    plain.pop("made_with", None)
    return _anywhere(plain, str(config["run_dir"]))


def _anywhere(plain: dict[str, Any], run_dir: str) -> str:
    # 1 and 1.0 stay different: Lightning takes the one for a number of batches, the other for all of them.
    text = json.dumps(plain, sort_keys=True)
    return re.sub(rf'"{re.escape(json.dumps(run_dir)[1:-1])}(?=["/])', '"{run_dir}', text)
