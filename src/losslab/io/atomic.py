"""Writes files atomically: after a crash, either the old or the new file exists, complete. Imports no torch.

A file is written under a temporary name in the same folder (a rename is atomic only within a file system), flushed to
disk with fsync, and renamed; then the folder is flushed too. The checksum of a file NAME, if it has one, is in
NAME.sha256 next to the file, in the format of `sha256sum`.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from math import isfinite
from pathlib import Path
from typing import IO, Any

from losslab.io.untrusted import open_regular_file, read_text

_flushes_each: ContextVar[bool] = ContextVar("flushes_each", default=True)
"""Whether each file is flushed to disk when it is written."""


@contextmanager
def flush_together() -> Iterator[None]:
    """Within this context, flush files to disk at its end, all together, instead of one by one.

    Flushing takes milliseconds for a file. Until the end, the files are safe if this process is killed, but not if the
    machine crashes.
    """
    token = _flushes_each.set(False)
    try:
        yield
    finally:
        _flushes_each.reset(token)
        os.sync()


def checksum_path(path: Path) -> Path:
    """Return the path of the checksum file that belongs to a file."""
    return path.with_name(f"{path.name}.sha256")


def write_with_checksum(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file and its checksum. `write` is called with the open file and writes its content.

    If the previous file has a checksum, the checksum stays valid until the new file replaces the previous file.

    Raises:
        OSError: there is no space or no permission. The previous file is unchanged.
    """
    previous = _read_digests(path)
    with _replace(path) as file:
        write(file)
        _flush(file)
        digest = sha256(Path(file.name))
        # Until the rename, the checksum file lists the digests of both files, so that either of them passes.
        _write_digests(path, [digest, *previous])
    if previous:
        _write_digests(path, [digest])


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file without a checksum.

    Raises:
        OSError: there is no space or no permission. The previous file is unchanged.
    """
    with _replace(path) as file:
        file.write(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file in the format of `to_json`.

    Raises:
        OSError: there is no space or no permission. The previous file is unchanged.
    """
    write_bytes(path, to_json(content).encode())


def to_json(content: Mapping[str, Any]) -> str:
    """Format a mapping as indented JSON. NaN and infinity, which JSON cannot represent, become null."""
    return json.dumps(_replace_non_finite(content), indent=2, ensure_ascii=False) + "\n"


def _replace_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_non_finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_non_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def copy(source: Path, path: Path) -> None:
    """Copy the regular file `source` to `path`, without its checksum.

    Raises:
        OSError: the source cannot be read or is not a regular file, or there is no space or no permission.
    """
    with open_regular_file(source) as content, _replace(path) as file:
        shutil.copyfileobj(content, file)


def move(path: Path, to: Path) -> None:
    """Rename a file and its checksum file within a folder. At any moment, each file matches its checksum file."""
    digests, previous = _read_digests(path), _read_digests(to)
    if digests:
        _write_digests(to, [*digests, *previous])
    else:  # an old checksum file at `to` would not match the renamed file
        checksum_path(to).unlink(missing_ok=True)
    path.replace(to)
    _fsync_folder(path.parent)
    if digests and previous:
        _write_digests(to, digests)


def remove(path: Path) -> None:
    """Remove a file and its checksum, if they exist."""
    path.unlink(missing_ok=True)
    checksum_path(path).unlink(missing_ok=True)


def remove_temporary_files(*folders: Path) -> None:
    """Remove the files that a process has left which was killed while it wrote into one of these folders."""
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def matches_checksum(path: Path) -> bool | None:
    """Return whether a file matches its checksum; None if it has no checksum file.

    Raises:
        OSError: the file cannot be read.
    """
    digests = _read_digests(path)
    return sha256(path) in digests if digests else None


@contextmanager
def _replace(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file. At the end of the `with` block, it replaces the file at `path` if nothing was raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # left by a killed process with the same process id
        with temporary.open("xb") as file:  # "x" fails if there is a link of that name
            yield file
            _flush(file)
        temporary.replace(path)
        _fsync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    if _flushes_each.get():
        os.fsync(file.fileno())


def _write_digests(path: Path, digests: list[str]) -> None:
    write_bytes(checksum_path(path), "".join(f"{digest}  {path.name}\n" for digest in digests).encode())


def _read_digests(path: Path) -> list[str]:
    try:
        lines = read_text(checksum_path(path), max_bytes=1 << 20).splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return []
    return [line.split()[0] for line in lines if line.strip()]


def sha256(path: Path) -> str:
    """Compute the SHA-256 digest of a regular file.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync_folder(folder: Path) -> None:
    if not _flushes_each.get():
        return
    with suppress(OSError):  # some network file systems do not support it
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
