"""The config groups in conf/, with their properties and choices. Imports no torch."""

from typing import NamedTuple

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
    ConfigGroup("imbalance", unset=True, corrupts=True, setting=True),
    ConfigGroup("noise", unset=True, corrupts=True, setting=True),
    ConfigGroup("mix", unset=True, recorded=False),
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


def choices(group: str) -> list[str]:
    """Return the names of the choices of a config group, in alphabetical order."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def unset_group_message(group: str, key: str) -> str:
    """Return the error message for a key that is set although nothing is chosen for the config group of the key."""
    offered = ", ".join(choice for choice in choices(group) if choice != "none")
    return f"{group}.{key} is set, but no {group} is chosen: choose {group}={offered}"
