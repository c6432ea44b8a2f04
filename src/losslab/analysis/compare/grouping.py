"""What of a configuration can change a result, and what cannot.

What groups of runs are called: by what tells them apart in their configurations.

Runs whose configurations differ in nothing but the seed, together.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from losslab.analysis.compare.read import Run
from losslab.errors import LabError
from losslab.io import conf_groups

Settings = dict[str, Any]
"""The values of a configuration by dotted key, such as "optimizer.lr"."""

_OF_OLDER_RUNS = ("data.seed",)
"""What follows from the seed, where a configuration does not say it in `per_run`."""

_WITHOUT_EFFECT = re.compile(
    r"(seed|name|tags|run_dir|train|test|examine|traceback|optimized_metric|per_run|choices|logger|made_with"
    r"|data\.(dir|url|workers|in_memory|eval_batch_size)|noise\.file"
    r"|trainer\.(enable_progress_bar|enable_model_summary|log_every_n_steps|num_sanity_val_steps|profiler"
    r"|default_root_dir)"
    r"|callbacks\.(finite_guard|gradient_norms|dynamics|path|dashboard|progress_bar|history)"
    r"|callbacks\.checkpoints\.(run_dir|every_seconds)"
    r"|.*\.run_dir)(\..*)?"
)
_BY_ROUNDING = re.compile(
    r"(compile|data\.verify|trainer\.(accelerator|devices|num_nodes|strategy|deterministic|benchmark)|made_with\..*)"
)


def result_settings(run: Run) -> Settings:
    """All that can change a result of a run but its seed.

    A value that follows from the seed, the name or the folder of the run is written with these in braces, so that it
    is the same for all seeds. A value of null is as good as none: older runs lack what newer ones have switched off.
    """
    found = {f"choices.{group}": run.choices.get(group) for group in conf_groups.SETTINGS}
    follows = {*run.config.get("per_run", _OF_OLDER_RUNS)}
    for key, value in _flat(run.config):
        if not _WITHOUT_EFFECT.fullmatch(key) or (key == "data.dir" and run.choices.get("data") == "image_folder"):
            found[key] = _followed(value, run) if key in follows else value
    return {key: value for key, value in found.items() if value is not None and not _BY_ROUNDING.fullmatch(key)}


def environment_settings(run: Run) -> Settings:
    """What should change a result by rounding at most: where and with which versions a run was made."""
    return {key: value for key, value in _flat(run.config) if _BY_ROUNDING.fullmatch(key) and value is not None}


def format_value(value: Any) -> str:
    """A value as one would type it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _flat(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All values by dotted key, each of which fits into a line, whoever wrote them."""
    if isinstance(config, dict):
        for key, value in config.items():
            name = str(key) if str(key).isprintable() else json.dumps(str(key))
            yield from _flat(value, f"{path}.{name}" if path else name)
    else:
        long = isinstance(config, list) or (isinstance(config, str) and not config.isprintable())
        yield path, json.dumps(config, separators=(",", ":")) if long else config


def _followed(value: Any, run: Run) -> str:
    text = str(value)
    for name in ("run_dir", "name"):
        if run.config.get(name):
            text = text.replace(str(run.config[name]), f"{{{name}}}")
    return re.sub(rf"(?<!\d){run.seed}(?!\d)", "{seed}", text)


_WITH_CHOICE = (*conf_groups.SETTINGS, "mix")
_ORDER = (
    "loss.", "model.", "data.", "mix.", "imbalance.", "noise.", "optimizer.", "trainer.", "scheduler.", "callbacks.",
)  # fmt: skip


def group_names(settings: Sequence[Settings]) -> list[tuple[str, ...]]:
    """A name for each of these settings, which are all different, in parts such as "loss=focal".

    It holds choices first (loss=focal), then single values (loss.gamma=2), and each only where it tells apart what the
    parts before it do not.
    """
    names: list[tuple[str, ...]] = [()] * len(settings)
    for key in _candidates(settings):
        values = [_value(key, each) for each in settings]
        cells: dict[tuple[str, ...], set[str]] = {}
        for name, value in zip(names, values, strict=True):
            cells.setdefault(name, set()).add(value)
        names = [
            (*name, f"{_said(key)}={value}") if len(cells[name]) > 1 else name
            for name, value in zip(names, values, strict=True)
        ]
    return [name or (f"loss={_value('loss', each)}",) for name, each in zip(names, settings, strict=True)]


def unnamed_differences(settings: Sequence[Settings], names: Sequence[tuple[str, ...]]) -> dict[str, list[str]]:
    """What else differs between the groups, and so may be where a difference comes from: by key, the value of each.

    A value that all settings of one choice share (gamma of the focal loss) comes with that choice, and is not told.
    """
    found: dict[str, list[str]] = {}
    for key in _candidates(settings):
        values = [_value(key, each) for each in settings]
        silent = [not any(part.startswith(f"{_said(key)}=") for part in name) for name in names]
        for cell in _with_one_choice(key, settings):
            if len({values[place] for place in cell}) > 1 and any(silent[place] for place in cell):
                found.setdefault(_said(key), values)
    return found


def _with_one_choice(key: str, settings: Sequence[Settings]) -> list[list[int]]:
    """The places of settings that a value is to be compared between: of a loss's, those with the same loss."""
    subject = key.partition(".")[0] if "." in key else ""
    cells: dict[str, list[int]] = {}
    for place, each in enumerate(settings):
        cells.setdefault(_value(subject, each) if subject in _WITH_CHOICE else "", []).append(place)
    return [*cells.values()]


def matches(settings: Settings, asked: dict[str, str]) -> bool:
    """Whether settings have these values, as one types them: {"loss": "focal", "loss.gamma": "2"}."""
    return all(_same(_value(key, settings), value) for key, value in asked.items())


def _same(value: str, asked: str) -> bool:
    try:
        return value == asked or float(value) == float(asked)
    except ValueError:
        return False


def _candidates(settings: Sequence[Settings]) -> list[str]:
    """All that may tell settings apart, the plainest first."""
    keys = dict.fromkeys(key for each in settings for key in each if not key.startswith(("choices.", "callbacks.")))
    callbacks = dict.fromkeys(key for each in settings for key in each if key.startswith("callbacks."))
    place = {prefix: number for number, prefix in enumerate(_ORDER)}
    plain = sorted((*keys, *callbacks), key=lambda key: place.get(key.partition(".")[0] + ".", len(place)))
    return [*conf_groups.SETTINGS[:3], "mix", *conf_groups.SETTINGS[3:], "callbacks", *plain]


def _value(key: str, settings: Settings) -> str:
    """What settings have at a candidate."""
    if key in conf_groups.SETTINGS:
        choice = settings.get(f"choices.{key}")
        own = settings.get(f"{key}._target_")
        if choice is own is None and key in conf_groups.CORRUPTIONS:
            return "none"
        return format_value(own if choice in {None, "custom"} and own is not None else choice)
    if key == "mix":
        return str(settings.get("mix._target_", "null")).rpartition(".")[2].lower()
    if key == "callbacks":
        names = dict.fromkeys(name.split(".")[1] for name in settings if name.startswith("callbacks."))
        return ",".join(name for name in names if name != "checkpoints") or ("default" if names else "none")
    return format_value(settings.get(key))


def _said(key: str) -> str:
    return re.sub(r"\._target_$", "", key)


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one configuration."""

    name: tuple[str, ...]
    """What tells it from the other groups, in parts such as "loss=focal"."""
    result_settings: Settings
    runs: tuple[Run, ...]
    """Those that count, one a seed, by seed."""
    repeated: tuple[Run, ...] = ()
    """Older ones of the same seeds, which do not count."""
    flawed: tuple[Run, ...] = ()
    """Those that failed, are not finished or are damaged."""

    @property
    def label(self) -> str:
        """What tells it from the other groups."""
        return " ".join(self.name)

    def values(self, metric: str) -> dict[int, float]:
        """A final value by seed, of the runs that have it."""
        return {run.seed: run.metrics[metric] for run in self.runs if metric in run.metrics}

    @property
    def size(self) -> int:
        """How many seeds there are, finished or not."""
        return len({run.seed for run in (*self.runs, *self.flawed)})


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Groups in the order of their first runs. Of runs that repeat a seed the newest finished one counts."""
    gathered: dict[frozenset[tuple[str, object]], list[Run]] = {}
    known: dict[frozenset[tuple[str, object]], Settings] = {}
    for run in runs:
        own = result_settings(run)
        key = frozenset(own.items())
        known.setdefault(key, own)
        gathered.setdefault(key, []).append(run)
    names = group_names([*known.values()])
    return [_group(name, known[key], gathered[key]) for name, key in zip(names, known, strict=True)]


def _group(name: tuple[str, ...], own: Settings, members: Sequence[Run]) -> Group:
    finished = sorted((run for run in members if not run.flaw), key=lambda run: run.written)
    newest = {run.seed: run for run in finished}
    counting = tuple(newest[seed] for seed in sorted(newest))
    older = tuple(run for run in finished if newest[run.seed] is not run)
    return Group(name, own, counting, older, tuple(run for run in members if run.flaw))


def find_baseline(groups: Sequence[Group], asked: Sequence[str]) -> Group:
    """The one group that has these values: ["loss=focal", "loss.gamma=2"].

    Raises:
        LabError: there is none, or several have them.
    """
    parts = " ".join(asked).split()
    pairs = dict(part.partition("=")[::2] for part in parts)
    if not pairs or not all("=" in part for part in parts):
        raise LabError(f"a baseline is named by its values, as in loss=cross_entropy, got {' '.join(asked)!r}")
    if len(pairs) < len(parts):
        twice = next(key for key in pairs if sum(part.partition("=")[0] == key for part in parts) > 1)
        raise LabError(
            f"baseline {' '.join(parts)} says {twice} more than once: there is one baseline, name its value once"
        )
    fitting = [one for one in groups if matches(one.settings, pairs)]
    if len(fitting) == 1:
        return fitting[0]
    what = "is in several groups, add what tells them apart" if fitting else "is in no group; there are"
    raise LabError(f"baseline {' '.join(asked)} {what}: {'; '.join(one.label for one in fitting or groups)}")
