"""The configuration groups in conf/ and their choices."""

from losslab import CONF


def choices(group: str) -> list[str]:
    """The choices of a group, in alphabetical order."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))
