"""Links in a folder that others handed over, through which files elsewhere would be written.

Files that others may have put there, opened only if they are files. Imports no torch.

A pipe would be waited for without end, and a device read without end.
"""

import errno
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
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
            raise LabError(f"{entry.path} is no file but a pipe or the like, and a run would wait for it: remove it")


def _below(folder: Path) -> Iterator[os.DirEntry[str]]:
    open_folders = [os.fspath(folder)]
    while open_folders:
        with os.scandir(open_folders.pop()) as inside:
            for entry in inside:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    open_folders.append(entry.path)


def _refuse(link: Path) -> NoReturn:
    raise LabError(f"{link} is a link, and what is written would go where it leads: put what it names in its place")


_LONGEST = 64 << 20


def open_plain(path: Path) -> BufferedReader:
    """Open a file to read it.

    Raises:
        OSError: it cannot be opened, or is no regular file; links to one are followed.
    """
    # Nothing is waited for, and what is looked at is what was opened: between two looks it could become another.
    place = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(place).st_mode):
        return os.fdopen(place, "rb")
    os.close(place)
    raise OSError(errno.EINVAL, "it is no file", str(path))


def read_bytes(path: Path, most: int = _LONGEST) -> bytes:
    """The content of a file.

    Raises:
        OSError: it cannot be read, is no file or longer than `most`, by default than any that a run writes.
    """
    with open_plain(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read()


def read_text(path: Path, most: int = _LONGEST) -> str:
    """The content of a text file, its lines ended by a newline alone.

    Raises:
        OSError: as `read_bytes` does.
        ValueError: it is no text.
    """
    return read_bytes(path, most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
