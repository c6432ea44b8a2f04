"""Files that others may have put there, opened only if they are files. Imports no torch.

A pipe would be waited for without end, and a device read without end.
"""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

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
