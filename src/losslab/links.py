"""Links in a folder that others handed over, through which files elsewhere would be written."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from losslab.errors import LabError


def keep_inside(path: Path, folder: Path) -> None:
    """See that what is written at a path in this folder lands there: no part of the path below the folder is a link.

    The folder itself may be reached by links, and a path that lies elsewhere is not looked at: whoever typed them meant
    them.

    Raises:
        LabError: one is; the message names it.
    """
    home, place = (Path(os.path.abspath(each)) for each in (folder, path))  # noqa: PTH100 -- resolve() would follow
    if not place.is_relative_to(home):
        return
    for part in place.relative_to(home).parts:
        home /= part
        if home.is_symlink():
            _refuse(home)


def refuse(folder: Path) -> None:
    """See that nothing in a folder, however deep, leads out of it when it is written to, or is waited for.

    A link to a name beside it stays where it is, as those do that Lightning makes of its newest checkpoint.

    Raises:
        LabError: something is a link that leads elsewhere, a pipe, a socket or a device; the message names it.
        OSError: a folder in it cannot be looked at.
    """
    for entry in _below(folder):
        if entry.is_symlink():
            leads = str(Path(entry).readlink())
            if "/" in leads or leads in {".", ".."}:
                _refuse(Path(entry))
        elif not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode) and not entry.is_dir(follow_symlinks=False):
            message = f"{entry.path} is no file but a pipe or the like, and a run would wait for it: remove it"
            raise LabError(message)


def _below(folder: Path) -> Iterator[os.DirEntry[str]]:
    open_folders = [os.fspath(folder)]
    while open_folders:
        with os.scandir(open_folders.pop()) as inside:
            for entry in inside:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    open_folders.append(entry.path)


def _refuse(link: Path) -> NoReturn:
    message = f"{link} is a link, and what is written would go where it leads: put what it names in its place"
    raise LabError(message)
