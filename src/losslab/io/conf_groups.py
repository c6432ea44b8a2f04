"""The configuration groups in conf/: one table of what each is, and their choices. Imports no torch."""

from typing import NamedTuple

from losslab import CONF


class Group(NamedTuple):
    """A folder of conf/, of whose files one is chosen: `loss=focal`."""

    name: str
    required: bool = False
    """Whether a run cannot do without a choice."""
    unset: bool = False
    """Whether nothing is chosen by default, so that its keys mean nothing until something is."""
    corrupts: bool = False
    """Whether it corrupts the training data. Corruptions apply in the order of the table."""
    recorded: bool = True
    """Whether config.json names the choice, under `choices`."""
    setting: bool = False
    """Whether its choice is a setting by which runs are compared."""


GROUPS = (
    Group("model", required=True, setting=True),
    Group("data", required=True, setting=True),
    Group("loss", required=True, setting=True),
    Group("imbalance", unset=True, corrupts=True, setting=True),
    Group("noise", unset=True, corrupts=True, setting=True),
    Group("mix", unset=True, recorded=False),
    Group("optimizer", required=True, setting=True),
    Group("scheduler", required=True, setting=True),
    Group("trainer", required=True),
    Group("callbacks", recorded=False),
    Group("logger", recorded=False),
    Group("experiment"),
    Group("debug"),
)
"""All groups, in the order in which `--help` lists them and config.json records them."""

NAMES = tuple(group.name for group in GROUPS)
REQUIRED = tuple(group.name for group in GROUPS if group.required)
UNSET = tuple(group.name for group in GROUPS if group.unset)
CORRUPTIONS = tuple(group.name for group in GROUPS if group.corrupts)
RECORDED = tuple(group.name for group in GROUPS if group.recorded)
SETTINGS = ("loss", *(group.name for group in GROUPS if group.setting and group.name != "loss"))
"""The groups by which runs are compared, the loss first."""


def choices(group: str) -> list[str]:
    """The choices of a group, in alphabetical order."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def nothing_chosen(group: str, key: str) -> str:
    """The message for a value of an unset group."""
    offered = ", ".join(choice for choice in choices(group) if choice != "none")
    return f"{group}.{key} is set and no {group} is chosen: choose {group}={offered}"
