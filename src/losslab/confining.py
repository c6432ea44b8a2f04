"""Where a run that somebody handed over may write when it goes on: into its folder."""

import re
from pathlib import Path
from typing import Any

from losslab import links
from losslab.errors import LabError
from losslab.trust import leaves, trusted

_FOLDERS = frozenset({"run_dir", "dirpath", "save_dir", "root_dir", "default_root_dir", "log_dir"})
_LEADS_AWAY = re.compile(r"^[/~\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|://|::")


def confine(config: dict[str, Any], folder: Path) -> None:
    """See that callbacks and loggers which are to run again write into the folder of their run alone.

    Lightning's ModelCheckpoint removes what a checkpoint says it once wrote, below the folder that it is given.

    Raises:
        LabError: one is given a folder elsewhere, or an address; or something in the folder is a link that
            leads elsewhere, or a pipe.
    """
    old, home = config.get("run_dir"), folder.resolve()
    if not isinstance(old, str):
        message = f"{folder}: its run_dir is no path: nothing is made"
        raise LabError(message)
    for group in ("callbacks", "logger"):
        for name, part in (config.get(group) or {}).items():
            if isinstance(part, dict) and not trusted(str(part.get("_target_"))):
                _confine(f"{group}.{name}", part, old, home)
    links.refuse(folder)


def _confine(name: str, part: dict[str, Any], old: str, home: Path) -> None:
    for place, value in leaves(part):
        keys = place.split(".")
        away = keys[-1] in _FOLDERS or "_args_" in keys or (isinstance(value, str) and _LEADS_AWAY.search(value))
        if not away or value is None or value == old:
            continue
        if not isinstance(value, str) or "\0" in value or not Path(value).resolve().is_relative_to(home):
            package = str(part.get("_target_")).partition(".")[0]
            where = f"{name}.{place} leads out of the run folder ({ascii(value)[:80]})"
            message = f"{where}: nothing is made. If you mean it, add trust=[{package}]"
            raise LabError(message)
