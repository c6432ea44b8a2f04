"""Validation, hyperparameters and identity of the resolved configuration of a run. Imports no torch."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from losslab import CONF
from losslab.io import conf_groups
from losslab.io.atomic import to_json
from losslab.io.terminal import printable
from losslab.runs.renames import current_name

_SECTIONS = (*conf_groups.REQUIRED, "choices")
_OPTIONAL_SECTIONS = ("callbacks", "logger", *conf_groups.UNSET)
_REQUIRED_KEYS = (("choices", "loss"), ("scheduler", "scheduler"), ("scheduler", "interval"))

CHANGEABLE_ON_RESUME = ("data.dir", "data.workers", "trainer.enable_progress_bar", "traceback", "trust")
"""Keys that may be changed when a run is resumed."""
_BOOKKEEPING = ("run_dir", "per_run", "choices", "made_with", "optimized_metric")
"""Keys that record facts about a run, such as its folder and library versions, and do not affect its training."""
RESULT_NEUTRAL_KEYS = frozenset({
    *CHANGEABLE_ON_RESUME, *_BOOKKEEPING, "name", "tags", "notes", "test", "examine", "logger", "noise.file",
    "data.url", "data.in_memory", "data.eval_batch_size", "trainer.enable_model_summary", "trainer.log_every_n_steps",
    "trainer.num_sanity_val_steps", "trainer.profiler", "trainer.default_root_dir", "callbacks.finite_guard",
    "callbacks.gradient_norms", "callbacks.dynamics", "callbacks.path", "callbacks.dashboard", "callbacks.progress_bar",
    "callbacks.history", "callbacks.checkpoints.run_dir", "callbacks.checkpoints.every_seconds",
})  # fmt: skip
"""Keys that, with all keys below them, do not change the results. Runs that differ only in these are repetitions."""


def changes_no_result(key: str, choices: Mapping[str, Any]) -> bool:
    """Return whether the value of a key, such as "data.workers", does not change the results of a run.

    `choices` maps config groups to choices: data.dir does not change the results of losslab's own data, except
    image_folder.
    """
    if key == "data.dir" and choices.get("data") not in _data_whose_dir_is_neutral():
        return False
    return _is_neutral(key)


@cache
def _data_whose_dir_is_neutral() -> frozenset[str | None]:
    """Return the choices of `data` under which data.dir does not change the results."""
    return frozenset({None, *conf_groups.choices("data")} - {"image_folder"})


@cache
def _is_neutral(key: str) -> bool:
    parts = key.split(".")
    return "run_dir" in parts[1:] or any(
        ".".join(parts[:end]) in RESULT_NEUTRAL_KEYS for end in range(1, len(parts) + 1)
    )


def find_problem(config: Any) -> str | None:
    """Return the first problem of a configuration; None if it is a valid configuration of a run."""
    return next(_problems(config), None)


def _problems(config: Any) -> Iterator[str]:
    """Yield the problems of a configuration. Use only the first: each check assumes that the earlier ones passed."""
    if not isinstance(config, dict):
        yield "it is not a mapping"
    missing = [key for key in ("seed", "name", *_SECTIONS) if key not in config]
    if missing:
        yield f"it lacks {', '.join(missing)}"
    wrong = [key for key in _SECTIONS if not isinstance(config[key], dict)]
    wrong += [key for key in _OPTIONAL_SECTIONS if not isinstance(config.get(key), dict | None)]
    yield from (f"its {key} is not a mapping" for key in wrong)
    for key in conf_groups.REQUIRED:
        if key != "scheduler" and not isinstance(config[key].get("_target_"), str):
            yield f"its {key} has no _target_"
    if not isinstance(config["seed"], int) or isinstance(config["seed"], bool):
        yield "its seed is not an integer"
    for choice in config["choices"].values():
        if not (choice is None or (isinstance(choice, str) and choice.isprintable())):
            yield "its choices do not map config groups to names"
    per_run = config.get("per_run", [])
    if not isinstance(per_run, list) or not all(isinstance(key, str) for key in per_run):
        yield "its per_run is not a list of config keys"
    yield from (f"it lacks {section}.{key}" for section, key in _REQUIRED_KEYS if key not in config[section])


def choice_names(
    config: Mapping[str, Any], choices: Mapping[str, Any], folders: tuple[Path, ...] = (CONF,)
) -> dict[str, str | None]:
    """Return the name of what is made for each recorded config group.

    It is the choice, or the names of the classes, such as "Smoothed+Focal", if they are not those in the file of the
    choice. `folders` are searched for this file. If it is in none of them, the name is the choice.
    """
    names = {group: choices.get(group) for group in conf_groups.RECORDED}
    for group in conf_groups.CORRUPTIONS:
        names[group] = None if names[group] == "none" else names[group]  # noise=none is the same run as no noise
    made = {group: config[group] or {} for group in names if group in config}
    return names | {group: _choice_name(group, names[group], made[group], folders) for group in made}


def _choice_name(group: str, choice: str | None, settings: Mapping[str, Any], folders: tuple[Path, ...]) -> str | None:
    targets = _targets(settings)
    if choice is None and targets:  # not recorded by an early version, or the keys were set without a choice
        choice = next((each for each in conf_groups.choices(group) if targets == _file_targets(group, each)), None)
    in_file = {} if choice is None else _file_targets(group, choice, folders)
    if in_file is None or targets == in_file:
        return choice
    if group == "scheduler" and not targets:
        return "constant"
    classes = "+".join(target.rpartition(".")[2] for target in targets.values())
    return printable(" ".join(classes.split())) or choice


@cache
def _file_targets(group: str, choice: str, folders: tuple[Path, ...] = (CONF,)) -> dict[str, str] | None:
    """Return `_targets` of the file of a choice; None if there is no file."""
    settings = conf_groups.file_settings(group, choice, folders)
    return None if settings is None else _targets(settings)


def _targets(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the classes and functions in the settings of a group, by dotted key, the outermost first."""
    targets = {
        key: current_name(str(value))
        for key, value in conf_groups.flatten(settings).items()
        if key.rpartition(".")[2] == "_target_" and value != "torch.tensor"
    }
    return dict(sorted(targets.items(), key=lambda item: item[0].count(".")))


def changed_settings(config: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Return the settings of a group, by dotted key, that differ from those in the file of the choice.

    Without such a file, these are all settings except None and False.
    """
    choice = config["choices"].get(group)
    in_file = None if choice is None else conf_groups.file_settings(group, choice)
    made = {key: value for key, value in conf_groups.flatten(config[group]).items() if "._" not in f".{key}"}
    if in_file is None:
        return {key: value for key, value in made.items() if value is not None and value is not False}
    return {
        key: value
        for key, value in made.items()
        if value != in_file.get(key) and "${" not in str(in_file.get(key)) and "???" not in str(in_file.get(key))
    }


def added_callbacks(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the callbacks that may change the results, by name, and their settings, by dotted key.

    Those in the file of the default callbacks are left out unless they were changed.
    """
    default = conf_groups.file_settings("callbacks", "default") or {}
    settings = conf_groups.flatten({name: item for name, item in (config.get("callbacks") or {}).items() if item})
    return {
        key.removesuffix("._target_"): str(value).rpartition(".")[2] if key.endswith("._target_") else value
        for key, value in settings.items()
        if value is not None and value != default.get(key) and not changes_no_result(f"callbacks.{key}", {})
    }


def hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters of a run, such as model, seed, loss.gamma, data.batch_size and trainer.max_epochs."""
    choices = {group: choice for group, choice in config["choices"].items() if choice is not None}
    groups = ("model", "loss", "optimizer", "scheduler", "mix", *conf_groups.CORRUPTIONS)
    values = conf_groups.flatten({name: config.get(name) or {} for name in groups})
    for group in ("data", "trainer"):  # whose files have many settings that are rarely changed
        changed = {f"{group}.{key}": value for key, value in changed_settings(config, group).items()}
        values |= {key: value for key, value in changed.items() if not changes_no_result(key, config["choices"])}
    values |= {f"callbacks.{key}": value for key, value in added_callbacks(config).items()}
    for name, key in (("data", "batch_size"), ("trainer", "max_epochs"), ("trainer", "precision")):
        values[f"{name}.{key}"] = config[name].get(key)
    plain = {
        key: str(value) if isinstance(value, list) else value
        for key, value in values.items()
        if isinstance(value, int | float | str | list) and "._" not in key and not key.endswith(".seed")
    }
    return choices | {"seed": config["seed"]} | plain


def identity(config: Mapping[str, Any]) -> str:
    """Return a string that is equal for all resolved configurations of the same run, even if its folder was moved.

    The string ignores the keys in `_BOOKKEEPING` and those that may be changed when the run is resumed.
    """
    ignored = {*_BOOKKEEPING, *CHANGEABLE_ON_RESUME}
    if not changes_no_result("data.dir", config.get("choices") or {}):
        ignored.discard("data.dir")
    return _canonical_json(config, ignored)


def exact_identity(config: Mapping[str, Any]) -> str:
    """Return a string like that of `identity`, which ignores only the folder, the choices and the library versions."""
    return _canonical_json(config, {"made_with", "choices"})


def _canonical_json(config: Mapping[str, Any], ignored: set[str]) -> str:
    """Return a configuration as JSON without the ignored keys, and with {run_dir} in place of the run folder."""
    plain = json.loads(to_json(config))
    for dotted in ignored:
        section, _, key = dotted.rpartition(".")
        values = plain.get(section) if section else plain
        if isinstance(values, dict):
            values.pop(key, None)
    # 1 and 1.0 stay different: as limit_train_batches, Lightning reads 1 as one batch, and 1.0 as all batches.
    text = json.dumps(plain, sort_keys=True)
    return re.sub(rf'"{re.escape(json.dumps(str(config["run_dir"]))[1:-1])}(?=["/])', '"{run_dir}', text)
