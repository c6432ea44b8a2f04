"""Where a run that somebody handed over may write when it goes on: into its folder."""

import re
from pathlib import Path
from typing import Any

from losslab import links
from losslab.errors import LabError
from losslab.named_places import goes_up, is_an_address, names_a_place
from losslab.trust import leaves, trusted

_LEADS_AWAY = re.compile(r"^[/\\]|^[A-Za-z]:")
_FIELD = r"\{\w+(?:/\w+)*(?::[0-9.]*[dfeg])?\}"
_FILENAME = re.compile(rf"(?!.*\.\.)(?:[\w.=+,@ -]|{_FIELD})*", re.ASCII)
"""What is no path, whatever values are filled in: `{epoch:c}` could be a dot or a slash."""
_UNSAID = {"SpikeDetection": "exclude_batches_path"}
"""Without this option it writes into the working directory."""


def confine(config: dict[str, Any], folder: Path) -> None:
    """See that callbacks and loggers which are to run again write into the folder of their run alone.

    Lightning's ModelCheckpoint removes what a checkpoint says it once wrote, below the folder that it is given.

    Raises:
        LabError: one is given a folder elsewhere, or an address; or something in the folder is a link that
            leads elsewhere, or a pipe.
    """
    confine_options(config, folder)
    links.refuse(folder)


def confine_options(config: dict[str, Any], folder: Path) -> None:
    """See that callbacks and loggers write into a folder, which need not be there yet.

    Raises:
        LabError: one is given a folder elsewhere, or an address.
    """
    old, home = config.get("run_dir"), folder.resolve()
    if not isinstance(old, str):
        message = f"{folder}: its run_dir is no path: nothing is made"
        raise LabError(message)
    for group in ("callbacks", "logger"):
        for name, part in (config.get(group) or {}).items():
            if isinstance(part, dict) and not trusted(str(part.get("_target_"))):
                _confine(f"{group}.{name}", part, old, home)


def _confine(name: str, part: dict[str, Any], old: str, home: Path) -> None:
    for place, value in [*leaves(part), *_unsaid(part)]:
        if not _stays(place.split("."), value, old, home):
            where = f"{name}.{place} leads out of the run folder ({ascii(value)[:80]})"
            message = f"{where}: nothing is made. If you mean it, add trust=[{part.get('_target_')}]"
            raise LabError(message)


def _unsaid(part: dict[str, Any]) -> list[tuple[str, str]]:
    """The option that leads away where it is left out, as if it were given."""
    option = _UNSAID.get(str(part.get("_target_")).rpartition(".")[2])
    return [(option, ".")] if option is not None and part.get(option) is None else []


def _stays(keys: list[str], value: Any, old: str, home: Path) -> bool:
    """Whether what is written by an option lies in the run folder."""
    if value is None or value == old:
        return True
    if isinstance(value, str) and is_an_address(value):
        return False
    if "filename" in keys:
        return isinstance(value, str) and bool(_FILENAME.fullmatch(value))
    away = any(map(names_a_place, keys)) or "_args_" in keys
    if not away and not (isinstance(value, str) and (_LEADS_AWAY.search(value) or goes_up(value))):
        return True
    return isinstance(value, str) and Path(value).resolve().is_relative_to(home)
