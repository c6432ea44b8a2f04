"""Unpacks CIFAR-10's archive without trusting it: files of one folder, no more bytes than the data set has."""

import gzip
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

_MOST_BYTES = 256 << 20
"""Unpacked; the data set takes 186 million."""
_MOST_FILES = 100


def unpack(archive: Path, into: Path, folder: str) -> None:
    """Unpack the files of `folder` in the archive, which must be all that it holds.

    Raises:
        ValueError: it holds something else: a file elsewhere, a link, a device, or more than CIFAR-10.
        tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error: it is damaged.
    """
    (into / folder).mkdir()
    with archive.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        content: Any = _Limited(gzip.GzipFile(fileobj=file) if packed else file)
        # As a stream, in which nothing is sought: what a header says of sizes is not gone to, but counted.
        with tarfile.open(fileobj=content, mode="r|") as tar:
            for number, member in enumerate(tar):
                path = PurePosixPath(member.name)
                if number > _MOST_FILES or not (path == PurePosixPath(folder) or _lies_in(path, folder)):
                    message = f"it holds {ascii(member.name)[:80]}"
                    raise ValueError(message)
                if member.isdir() and path == PurePosixPath(folder):
                    continue
                part = tar.extractfile(member) if member.isreg() and not member.sparse else None
                if part is None:
                    message = f"its {ascii(member.name)[:80]} is no file"
                    raise ValueError(message)
                with part, (into / folder / path.name).open("xb") as fresh:
                    shutil.copyfileobj(part, fresh)


def _lies_in(path: PurePosixPath, folder: str) -> bool:
    return path.parts == (folder, path.name) and path.name not in {".", ".."}


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """So many bytes, or what is left."""


class _Limited:
    """A stream that is refused when it turns out to be longer than the data set, however small it was packed."""

    def __init__(self, file: _Readable) -> None:
        self._file, self._left = file, _MOST_BYTES

    def read(self, size: int) -> bytes:
        """So many bytes, or what is left."""
        found = self._file.read(size)
        self._left -= len(found)
        if self._left < 0:
            message = f"it unpacks to more than {_MOST_BYTES >> 20} MiB"
            raise ValueError(message)
        return found
