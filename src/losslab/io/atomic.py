"""Files that are whole or not there, whatever happens while they are written. Imports no torch.

A file that is to survive is written under another name into its own folder, since a rename within one folder is
atomic and one between file systems is a copy; then to the disk (fsync), then renamed, and then the folder, whose entry
is data too, to the disk. Beside it stands its SHA-256 as `sha256sum` writes and checks it.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from losslab.io.untrusted import open_plain, read_text

_CHUNK = 1 << 20


def checksum_of(path: Path) -> Path:
    """Where the checksum of a file stands."""
    return path.with_name(f"{path.name}.sha256")


def write(path: Path, content: Callable[[IO[bytes]], object]) -> None:
    """Write a file with its checksum. Until the very end the file that was there before stays, and verifies.

    Args:
        path: of the file. Its folder is made.
        content: writes it into an open file.

    Raises:
        OSError: there is no room, or no permission. The file that was there before is untouched.
    """
    with _beside(path, content) as fresh:
        digest = _digest(fresh)
        # At no moment is there a file whose checksum is not: for a while both are named, the new one and the old one.
        before = _digests(path)
        _write_checksum(path, [digest, *before])
        fresh.replace(path)
        _folder_to_disk(path.parent)
        if before:
            _write_checksum(path, [digest])


def put(path: Path, content: bytes) -> None:
    """Write a small file at once or not at all; without a checksum.

    Raises:
        OSError: there is no room, or no permission. The file that was there before is untouched.
    """
    with _beside(path, lambda file: file.write(content)) as fresh:
        fresh.replace(path)
        _folder_to_disk(path.parent)


def copy(source: Path, path: Path) -> None:
    """Put the content of a file under another name, at once or not at all; without a checksum.

    Raises:
        OSError: the one is no file or cannot be read, or there is no room for the other, or no permission.
    """
    with open_plain(source) as file, _beside(path, partial(shutil.copyfileobj, file)) as fresh:
        fresh.replace(path)
        _folder_to_disk(path.parent)


def move(path: Path, to: Path) -> None:
    """Rename a file that has a checksum to another name in the same folder. It verifies under one of the two names."""
    own, before = _digests(path), _digests(to)
    if own:
        _write_checksum(to, [*own, *before])
    else:  # nobody knows what it should be: what the other was says nothing of it
        checksum_of(to).unlink(missing_ok=True)
    path.replace(to)
    _folder_to_disk(path.parent)
    if own and before:
        _write_checksum(to, own)


def remove(path: Path) -> None:
    """Remove a file and its checksum, if they are there."""
    path.unlink(missing_ok=True)
    checksum_of(path).unlink(missing_ok=True)


def verifies(path: Path) -> bool | None:
    """Whether a file is what was written; None where nobody wrote down what that was.

    Raises:
        OSError: it cannot be read.
    """
    known = _digests(path)
    return _digest(path) in known if known else None


@contextmanager
def _beside(path: Path, content: Callable[[IO[bytes]], object]) -> Iterator[Path]:
    """A new file in the same folder, on the disk; it is removed if it still has that name afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fresh.unlink(missing_ok=True)  # of a process that had this number and was killed
        with fresh.open("xb") as file:  # never through a link that others put there
            content(file)
            file.flush()
            os.fsync(file.fileno())
        yield fresh
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def _write_checksum(path: Path, digests: list[str]) -> None:
    put(checksum_of(path), "".join(f"{digest}  {path.name}\n" for digest in digests).encode())


def _digests(path: Path) -> list[str]:
    try:
        lines = read_text(checksum_of(path), _CHUNK).splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return []
    return [line.split()[0] for line in lines if line.strip()]


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with open_plain(path) as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _folder_to_disk(folder: Path) -> None:
    with suppress(OSError):  # some network file systems know no such thing
        place = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)
