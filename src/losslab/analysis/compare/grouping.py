"""Groups of runs whose configurations differ only in the seed; how groups are named, and found by name."""

import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from losslab.analysis.compare.read import Run
from losslab.errors import LabError
from losslab.io import conf_groups
from losslab.runs.config import changes_no_result

Settings = dict[str, Any]
"""The values of a configuration by dotted key, such as "optimizer.lr"."""

_KEY_ORDER = ("loss", "model", "data", "mix", "imbalance", "noise", "optimizer", "trainer", "scheduler", "callbacks")

_COUNT_OR_SHARE = re.compile(r"trainer\.(limit_\w+_batches|overfit_batches|val_check_interval)")
"""Keys for which 1 is a number of batches, and 1.0 a share of them."""
_MAX_VALUE = 60
"""The largest number of characters of a value in a name."""

_ENVIRONMENT = re.compile(
    r"(compile|data\.verify|trainer\.(accelerator|devices|num_nodes|strategy|deterministic|benchmark)|made_with\..*)"
)
"""Keys of settings that should change a result only by rounding errors."""


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one configuration."""

    name: tuple[str, ...]
    """The settings that distinguish this group from the other groups, such as ("loss=focal", "loss.gamma=2")."""
    settings: Settings
    runs: tuple[Run, ...]
    """One finished run per seed, sorted by seed."""
    repeated: tuple[Run, ...] = ()
    """Older finished runs with the same seeds, which are excluded from the comparison."""
    excluded: tuple[Run, ...] = ()
    """Failed, unfinished and damaged runs."""

    @property
    def label(self) -> str:
        """The name as one string."""
        return " ".join(self.name)

    @property
    def loss_label(self) -> str:
        """The loss, and after commas the other settings in the name, as `losslab.io.figures.loss_styles` takes them."""
        losses = [part.partition("=")[2] for part in self.name if part.startswith("loss=")]
        others = [part for part in self.name if not part.startswith("loss=")]
        return ", ".join([*(losses or [_value("loss", self.settings)]), *others])

    def values(self, metric: str) -> dict[int, float]:
        """Return the final values of a metric by seed, for the runs that have this metric."""
        return {run.seed: run.metrics[metric] for run in self.runs if metric in run.metrics}


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Group runs by settings, in the order of first runs. Of several finished runs with one seed, the newest counts."""
    by_settings: dict[frozenset[tuple[str, str]], tuple[Settings, list[Run]]] = {}
    for run in runs:
        settings = result_settings(run)
        # Without the choices: equal settings are the same configuration, whatever file they are from.
        same = ((key, _canonical(key, value)) for key, value in settings.items() if not key.startswith("choices."))
        by_settings.setdefault(frozenset(same), (settings, []))[1].append(run)
    overrides = [next((run.overrides for run in members if run.overrides), []) for _, members in by_settings.values()]
    names = group_names([settings for settings, _ in by_settings.values()], overrides)
    groups = []
    for name, (settings, members) in zip(names, by_settings.values(), strict=True):
        finished = sorted((run for run in members if not run.problem), key=lambda run: run.written)
        newest = {run.seed: run for run in finished}
        repeated = tuple(run for run in finished if newest[run.seed] is not run)
        excluded = tuple(run for run in members if run.problem)
        groups.append(Group(name, settings, tuple(newest[seed] for seed in sorted(newest)), repeated, excluded))
    return groups


def result_settings(run: Run) -> Settings:
    """Return the settings of a run that can change its result, except the seed.

    In values that depend on the run, its seed, name and folder are replaced by "{seed}", "{name}" and "{run_dir}", so
    that the runs of all seeds have the same settings. Null values are dropped, because configurations of older versions
    lack keys that newer versions set to null.
    """
    settings = {f"choices.{group}": run.choices.get(group) for group in conf_groups.SETTINGS}
    per_run = run.config.get("per_run", ["data.seed"])  # the default is for older configurations
    for key, value in run.settings.items():
        if key != "seed" and not changes_no_result(key, run.choices):
            settings[key] = _without_run(value, run) if key in per_run else value
    return {key: value for key, value in settings.items() if value is not None and not _is_environment(key)}


def environment_settings(run: Run) -> dict[str, str]:
    """Return the settings that should change a result only by rounding errors: devices and versions."""
    found = ((key, value) for key, value in run.settings.items() if value is not None and _is_environment(key))
    return {key: format_value(value) for key, value in found}


@cache
def _is_environment(key: str) -> bool:
    return _ENVIRONMENT.fullmatch(key) is not None


def format_value(value: Any) -> str:
    """Format a value as it is typed on the command line. The string "null" is quoted, since null is a missing value."""
    return json.dumps(value) if value is None or isinstance(value, bool) or value == "null" else str(value)


def _canonical(key: str, value: Any) -> str:
    """Return a text that is equal for values with the same meaning, such as 1, 1.0 and "1"."""
    text = format_value(value)
    return text if _COUNT_OR_SHARE.fullmatch(key) else _canonical_text(text)


@cache
def _canonical_text(text: str) -> str:
    try:
        return json.dumps(json.loads(text, parse_int=lambda digits: float(digits) if len(digits) < 16 else digits))
    except ValueError:
        return text


def _shown(value: str) -> str:
    """Return a value for a name. The middle of a long value is replaced by a checksum, so that names stay distinct."""
    if len(value) <= _MAX_VALUE:
        return value
    return f"{value[:32]}..{zlib.crc32(value.encode('utf-8', 'surrogatepass')):08x}..{value[-16:]}"


def shorten(labels: Sequence[str]) -> str:
    """Join labels by commas; if there are more than four, only the first three and the number of the others."""
    return ", ".join(labels) if len(labels) <= 4 else f"{', '.join(labels[:3])} and {len(labels) - 3} more"


def labels_by_value(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Collect the distinct labels of each value, from pairs of a value and a label."""
    labels: dict[str, dict[str, None]] = {}
    for value, label in pairs:
        labels.setdefault(value, {})[label] = None
    return {value: [*same] for value, same in labels.items()}


def _without_run(value: Any, run: Run) -> str:
    text = str(value)
    for key in ("run_dir", "name"):
        if run.config.get(key):
            text = text.replace(str(run.config[key]), f"{{{key}}}")
    return re.sub(rf"(?<!\d){run.seed}(?!\d)", "{seed}", text)


def group_names(settings: Sequence[Settings], overrides: Sequence[Sequence[str]] = ()) -> list[tuple[str, ...]]:
    """Return a name for the settings of each group: a tuple of parts such as "loss=focal".

    Choices of config groups (loss=focal) precede single values (loss.gamma=2). A part is added to the names
    of groups that have the same name so far, if their values differ. Of several keys whose values differ, those come
    first that the user varied, according to the `overrides` of each group: the others may only follow from them.
    """
    names: list[tuple[str, ...]] = [()] * len(settings)
    for key in _naming_keys(settings, overrides):
        values = [_value(key, each) for each in settings]
        values_of_name = defaultdict(set)
        for name, value in zip(names, values, strict=True):
            values_of_name[name].add(value)
        names = [
            (*name, f"{key.removesuffix('._target_')}={_shown(value)}") if len(values_of_name[name]) > 1 else name
            for name, value in zip(names, values, strict=True)
        ]
    return [name or (f"loss={_value('loss', each)}",) for name, each in zip(names, settings, strict=True)]


def unnamed_differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Return the settings that differ between groups but are missing from a name: one value per group, by key.

    Such a setting may be the cause of a difference in the results. Values that belong to a choice (gamma of the focal
    loss) are compared only between groups with the same choice.
    """
    settings = [group.settings for group in groups]
    differing: dict[str, list[str]] = {}
    for key in _naming_keys(settings):
        values = [_value(key, each) for each in settings]
        shown = key.removesuffix("._target_")
        config_group, is_value, _ = key.partition(".")
        values_of_choice, unnamed_choices = defaultdict(set), set()
        for group, value in zip(groups, values, strict=True):
            choice = _value(config_group, group.settings) if is_value and config_group in conf_groups.SETTINGS else ""
            values_of_choice[choice].add(value)
            if not any(part.startswith(f"{shown}=") for part in group.name):
                unnamed_choices.add(choice)
        if any(len(values_of_choice[choice]) > 1 for choice in unnamed_choices):
            differing.setdefault(shown, values)
    return differing


def distinct_values(groups: Sequence[Group], key: str) -> list[str]:
    """Return the values of a setting in all groups, as in their names."""
    return [*dict.fromkeys(_value(key, group.settings) for group in groups)]


def find_baseline(groups: Sequence[Group], values: Sequence[str]) -> Group:
    """Find the one group with values such as ["loss=focal", "loss.gamma=2"]. Raises LabError for none or several."""
    parts = [part for part in re.split(r"\s+(?=[\w.]+=)", " ".join(values).strip()) if part]
    if not parts or not all("=" in part for part in parts):
        raise LabError(f"a baseline is named by its values, such as loss=cross_entropy, got {' '.join(values)!r}")
    key, count = Counter(part.partition("=")[0] for part in parts).most_common(1)[0]
    if count > 1:
        raise LabError(f"baseline {' '.join(parts)} names {key} more than once: there is one baseline, name {key} once")
    pairs = [part.partition("=")[::2] for part in parts]
    matching = [
        group for group in groups if all(_is_named(value, _values_of(key, group.settings)) for key, value in pairs)
    ]
    exact = [group for group in matching if all(value in _values_of(key, group.settings) for key, value in pairs)]
    matching = exact if len(exact) == 1 else matching  # limit_train_batches=1 is not limit_train_batches=1.0
    if len(matching) == 1:
        return matching[0]
    what = "matches several groups, add a setting in which they differ" if matching else "matches no group; groups are"
    raise LabError(f"baseline {' '.join(values)} {what}: {'; '.join(group.label for group in matching or groups)}")


def _values_of(key: str, settings: Settings) -> list[str]:
    """Return the texts by which a setting may be named: as in a name, in full, and of a class without its module."""
    keys = [key, f"{key}._target_"] if f"{key}._target_" in settings else [key]
    values = [_value(each, settings) for each in keys]
    return [*values, *map(_shown, values), *(value.rpartition(".")[2] for value in values if not _is_number(value))]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_named(value: str, own: Sequence[str]) -> bool:
    return value in own or (_is_number(value) and float(value) in map(float, filter(_is_number, own)))


def _naming_keys(settings: Sequence[Settings], overrides: Sequence[Sequence[str]] = ()) -> list[str]:
    """Return the keys that may be part of a name, the most important first: choices before values (`group_names`)."""
    varied = _varied_keys(overrides)

    def times_set(key: str) -> int:
        return sum(groups for override, groups in varied.items() if _is_set(key, override))

    longest_first = sorted(settings, key=len, reverse=True)  # null values are missing, and with them their keys
    single = {key: times_set(key) for each in longest_first for key in each if not key.startswith("choices.")}
    order = {group: rank for rank, group in enumerate(_KEY_ORDER)}
    return [
        *sorted([*conf_groups.SETTINGS, "callbacks"], key=lambda key: not times_set(key)),
        *sorted(single, key=lambda key: (not single[key], order.get(key.partition(".")[0], len(order)), -single[key])),
    ]


def _varied_keys(overrides: Sequence[Sequence[str]]) -> dict[str, int]:
    """Return the keys of those overrides that not all groups share, and how many groups have each key."""
    values = defaultdict(list)
    for each in overrides:
        for key, value in dict(override.lstrip("+~").partition("=")[::2] for override in each).items():
            values[key].append(value)
    return {key: len(own) for key, own in values.items() if len(own) < len(overrides) or len({*own}) > 1}


def _is_set(key: str, override: str) -> bool:
    """Return whether an override with the key `override` sets this key of `_naming_keys`, not only as a default."""
    if override in conf_groups.NAMES:
        return override == key
    path = override.partition("@")[2] or override
    return f"{key}.".startswith(f"{path}.") or (path.endswith("._target_") and path.startswith(f"{key}."))


def _value(key: str, settings: Settings) -> str:
    """Return the value of a key of `_naming_keys` as text."""
    if key in conf_groups.SETTINGS:
        choice = settings.get(f"choices.{key}")
        target = settings.get(f"{key}.scheduler._target_" if key == "scheduler" else f"{key}._target_")
        if choice is target is None and key in conf_groups.UNSET:
            return "none"
        is_class = choice in {None, "custom"} or (
            choice == str(target).rpartition(".")[2] and choice not in conf_groups.choices(key)
        )
        return format_value(target if is_class and target is not None else choice)
    if key == "callbacks":
        names = dict.fromkeys(name.split(".")[1] for name in settings if name.startswith("callbacks."))
        return ",".join(name for name in names if name != "checkpoints") or ("default" if names else "none")
    return format_value(settings.get(key))
