"""Groups of runs whose configurations differ only in the seed, and their names."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from losslab.analysis.compare.read import Run
from losslab.io import conf_groups
from losslab.runs.config import changes_no_result

Settings = dict[str, Any]
"""Values of a configuration by dotted key, such as "optimizer.lr"."""

_NAMED_GROUPS = (*conf_groups.SETTINGS, "mix")
_KEY_ORDER = ("loss", "model", "data", "mix", "imbalance", "noise", "optimizer", "trainer", "scheduler", "callbacks")

_DEFAULT_PER_RUN = ("data.seed",)
"""Keys that depend on the seed in configurations that were written without `per_run`."""

_ENVIRONMENT = re.compile(
    r"(compile|data\.verify|trainer\.(accelerator|devices|num_nodes|strategy|deterministic|benchmark)|made_with\..*)"
)


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one configuration."""

    name: tuple[str, ...]
    """Settings that distinguish it from the other groups, such as ("loss=focal", "loss.gamma=2")."""
    settings: Settings
    runs: tuple[Run, ...]
    """Finished runs, one for each seed, sorted by seed."""
    repeated: tuple[Run, ...] = ()
    """Older finished runs of the same seeds, which are not counted."""
    excluded: tuple[Run, ...] = ()
    """Failed, unfinished and damaged runs."""

    @property
    def label(self) -> str:
        """The name as one text."""
        return " ".join(self.name)

    def values(self, metric: str) -> dict[int, float]:
        """Final values of a metric by seed, of the runs that have it."""
        return {run.seed: run.metrics[metric] for run in self.runs if metric in run.metrics}


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Group runs by their settings, in the order of the first runs. The newest finished run of a seed counts."""
    members: dict[frozenset[tuple[str, object]], tuple[Settings, list[Run]]] = {}
    for run in runs:
        settings = result_settings(run)
        members.setdefault(frozenset(settings.items()), (settings, []))[1].append(run)
    names = group_names([settings for settings, _ in members.values()])
    return [_group(name, *each) for name, each in zip(names, members.values(), strict=True)]


def _group(name: tuple[str, ...], settings: Settings, members: Sequence[Run]) -> Group:
    finished = sorted((run for run in members if not run.problem), key=lambda run: run.written)
    newest = {run.seed: run for run in finished}
    counted = tuple(newest[seed] for seed in sorted(newest))
    repeated = tuple(run for run in finished if newest[run.seed] is not run)
    return Group(name, settings, counted, repeated, tuple(run for run in members if run.problem))


def result_settings(run: Run) -> Settings:
    """Settings of a run that can change its result, except the seed.

    In values that depend on the seed, run name or run folder, these are replaced by "{seed}", "{name}" and
    "{run_dir}", so that all seeds have the same settings. Null values are dropped: configurations of older versions
    lack keys that newer ones set to null.
    """
    settings = {f"choices.{group}": run.choices.get(group) for group in conf_groups.SETTINGS}
    per_run = {*run.config.get("per_run", _DEFAULT_PER_RUN)}
    for key, value in _flatten(run.config):
        if key != "seed" and not changes_no_result(key, run.choices):
            settings[key] = _without_run(value, run) if key in per_run else value
    return {key: value for key, value in settings.items() if value is not None and not _ENVIRONMENT.fullmatch(key)}


def environment_settings(run: Run) -> Settings:
    """Settings that should change a result by rounding at most: devices and versions."""
    return {key: value for key, value in _flatten(run.config) if _ENVIRONMENT.fullmatch(key) and value is not None}


def format_value(value: Any) -> str:
    """Format a value as on the command line."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def shorten(labels: Sequence[str]) -> str:
    """Join labels by commas; of more than four only the first three."""
    return ", ".join(labels) if len(labels) <= 4 else f"{', '.join(labels[:3])} and {len(labels) - 3} more"


def labels_by_value(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The different labels of each value in pairs of a value and a label."""
    labels: dict[str, dict[str, None]] = {}
    for value, label in pairs:
        labels.setdefault(value, {})[label] = None
    return {value: [*same] for value, same in labels.items()}


def _flatten(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all values by dotted key, each printable on one line: the configuration may be untrusted."""
    if isinstance(config, dict):
        for key, value in config.items():
            name = str(key) if str(key).isprintable() else json.dumps(str(key))
            yield from _flatten(value, f"{path}.{name}" if path else name)
    else:
        escape = isinstance(config, list) or (isinstance(config, str) and not config.isprintable())
        yield path, json.dumps(config, separators=(",", ":")) if escape else config


def _without_run(value: Any, run: Run) -> str:
    text = str(value)
    for key in ("run_dir", "name"):
        if run.config.get(key):
            text = text.replace(str(run.config[key]), f"{{{key}}}")
    return re.sub(rf"(?<!\d){run.seed}(?!\d)", "{seed}", text)


def group_names(settings: Sequence[Settings]) -> list[tuple[str, ...]]:
    """Name each of several different settings by parts such as "loss=focal".

    Choices come first (loss=focal), then single values (loss.gamma=2). A part is added only where it distinguishes
    settings that have the same name so far.
    """
    names: list[tuple[str, ...]] = [()] * len(settings)
    for key in _naming_keys(settings):
        values = [_value(key, each) for each in settings]
        values_of_name = defaultdict(set)
        for name, value in zip(names, values, strict=True):
            values_of_name[name].add(value)
        names = [
            (*name, f"{key.removesuffix('._target_')}={value}") if len(values_of_name[name]) > 1 else name
            for name, value in zip(names, values, strict=True)
        ]
    return [name or (f"loss={_value('loss', each)}",) for name, each in zip(names, settings, strict=True)]


def unnamed_differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Settings that differ between groups and are not in their names: by key, the value of each group.

    A difference in the result may come from them. Values that belong to a choice (gamma of the focal loss) are only
    compared between groups with the same choice.
    """
    settings = [group.settings for group in groups]
    differing: dict[str, list[str]] = {}
    for key in _naming_keys(settings):
        values = [_value(key, each) for each in settings]
        shown = key.removesuffix("._target_")
        unnamed = [not any(part.startswith(f"{shown}=") for part in group.name) for group in groups]
        for indices in _comparable(key, settings):
            if len({values[index] for index in indices}) > 1 and any(unnamed[index] for index in indices):
                differing.setdefault(shown, values)
    return differing


def _comparable(key: str, settings: Sequence[Settings]) -> list[list[int]]:
    """Indices of the settings between which a key is compared: keys of a loss between settings with that loss."""
    group = key.partition(".")[0] if "." in key else ""
    indices = defaultdict(list)
    for index, each in enumerate(settings):
        indices[_value(group, each) if group in _NAMED_GROUPS else ""].append(index)
    return [*indices.values()]


def matches(settings: Settings, values: dict[str, str]) -> bool:
    """Whether settings have these values, given as text: {"loss": "focal", "loss.gamma": "2"}."""
    return all(_equal(_value(key, settings), value) for key, value in values.items())


def _equal(value: str, other: str) -> bool:
    try:
        return value == other or float(value) == float(other)
    except ValueError:
        return False


def _naming_keys(settings: Sequence[Settings]) -> list[str]:
    """Keys that may distinguish settings, the plainest first."""
    keys = dict.fromkeys(key for each in settings for key in each if not key.startswith("choices."))
    order = {group: rank for rank, group in enumerate(_KEY_ORDER)}
    single = sorted(keys, key=lambda key: order.get(key.partition(".")[0], len(order)))
    return [*conf_groups.SETTINGS[:3], "mix", *conf_groups.SETTINGS[3:], "callbacks", *single]


def _value(key: str, settings: Settings) -> str:
    """Value of settings at a naming key, as text."""
    if key in conf_groups.SETTINGS:
        choice = settings.get(f"choices.{key}")
        target = settings.get(f"{key}._target_")
        if choice is target is None and key in conf_groups.CORRUPTIONS:
            return "none"
        return format_value(target if choice in {None, "custom"} and target is not None else choice)
    if key == "mix":
        return str(settings.get("mix._target_", "null")).rpartition(".")[2].lower()
    if key == "callbacks":
        names = dict.fromkeys(name.split(".")[1] for name in settings if name.startswith("callbacks."))
        return ",".join(name for name in names if name != "checkpoints") or ("default" if names else "none")
    return format_value(settings.get(key))
