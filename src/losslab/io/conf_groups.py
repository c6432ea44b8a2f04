"""The config groups in conf/, with their properties and choices. Imports no torch."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from losslab import CONF


class ConfigGroup(NamedTuple):
    """A folder of conf/. A run chooses one of the files in it: `loss=focal` chooses conf/loss/focal.yaml."""

    name: str
    required: bool = False
    """Whether every run needs a choice."""
    unset: bool = False
    """Whether nothing is chosen by default. Then the keys of the group may be set only together with a choice."""
    corrupts: bool = False
    """Whether the choice corrupts the training data. Corruptions are applied in the order of `GROUPS`."""
    recorded: bool = True
    """Whether config.json records the choice, under `choices`."""
    setting: bool = False
    """Whether `losslab compare` puts runs with different choices into different groups of runs."""


GROUPS = (
    ConfigGroup("model", required=True, setting=True),
    ConfigGroup("data", required=True, setting=True),
    ConfigGroup("loss", required=True, setting=True),
    ConfigGroup("mix", unset=True, setting=True),
    ConfigGroup("imbalance", unset=True, corrupts=True, setting=True),
    ConfigGroup("noise", unset=True, corrupts=True, setting=True),
    ConfigGroup("optimizer", required=True, setting=True),
    ConfigGroup("scheduler", required=True, setting=True),
    ConfigGroup("trainer", required=True),
    ConfigGroup("callbacks", recorded=False),
    ConfigGroup("logger", recorded=False),
    ConfigGroup("experiment"),
    ConfigGroup("debug"),
)
"""All groups, in the order in which `--help` lists them and config.json records them."""

NAMES = tuple(group.name for group in GROUPS)
REQUIRED = tuple(group.name for group in GROUPS if group.required)
UNSET = tuple(group.name for group in GROUPS if group.unset)
CORRUPTIONS = tuple(group.name for group in GROUPS if group.corrupts)
RECORDED = tuple(group.name for group in GROUPS if group.recorded)
SETTINGS = ("loss", *(group.name for group in GROUPS if group.setting and group.name != "loss"))
"""The config groups whose choices tell `losslab compare` which runs belong together. The first is the loss."""


@cache
def choices(group: str) -> list[str]:
    """Return the names of the choices of a config group, in alphabetical order."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def source_folders(sources: Iterable[Any]) -> tuple[Path, ...]:
    """Return the folders of Hydra's config sources (hydra.runtime.config_sources), in the order of the search."""
    folders: list[Path] = []
    for source in sources:
        if source.schema == "file":
            folders.append(Path(source.path))
        elif source.schema == "pkg" and not source.path.startswith("hydra."):
            with suppress(ModuleNotFoundError):  # Hydra warns that it is not available
                spec = find_spec(source.path.replace("/", "."))
                folders += map(Path, (spec and spec.submodule_search_locations) or ())
    return tuple(folders)


def files_of(group: str, choice: str, folders: Sequence[Path] = (CONF,)) -> list[Path]:
    """Return the files of a choice in these folders, each once. Hydra reads only the first."""
    if {"", ".."} & {*choice.split("/")}:  # not below the folder of the group
        return []
    paths = (folder / group / f"{choice}.yaml" for folder in folders)
    return [*{path.resolve(): path for path in paths if path.is_file()}.values()]


@cache
def file_settings(group: str, choice: str, folders: tuple[Path, ...] = (CONF,)) -> dict[str, Any] | None:
    """Return the settings of a group as the file of a choice sets them, by dotted key; None if there is no file.

    The files in the defaults of the file are included. Interpolations are not resolved.
    """
    files = files_of(group, choice, folders)
    if not files:
        return None
    from omegaconf import OmegaConf  # noqa: PLC0415 -- slow to import

    content: Any = OmegaConf.to_container(OmegaConf.load(files[0]), resolve=False)
    is_global = files[0].read_text(encoding="utf-8").lstrip().startswith("# @package _global_")
    defaults = content.pop("defaults", [])
    settings: dict[str, Any] = {}
    for entry in defaults if "_self_" in defaults else [*defaults, "_self_"]:
        if entry == "_self_":
            settings |= flatten(content.get(group) or {} if is_global else content)
            continue
        (source, name), *_ = ({group: entry} if isinstance(entry, str) else entry).items()
        source, _, package = (f"{source}@{name.partition('@')[2]}" if isinstance(entry, str) else source).partition("@")
        if source.startswith("override ") or not isinstance(name, str):
            continue
        prefix = package.removeprefix(group).lstrip(".") if is_global else package
        included = file_settings(source.lstrip("/"), name.partition("@")[0], folders) or {}
        if source.lstrip("/") == group or package:
            settings |= {f"{prefix}.{key}".lstrip("."): value for key, value in included.items()}
    return settings


def flatten(settings: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted key."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        result |= flatten(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return result


def unset_group_message(group: str, key: str) -> str:
    """Return the error message for a key that is set although nothing is chosen for the config group of the key."""
    offered = ", ".join(choice for choice in choices(group) if choice != "none")
    return f"{group}.{key} is set, but no {group} is chosen: choose {group}={offered}"
