"""Claims the folder of a new run or sweep, and locks a folder while a process writes to it. Imports no torch."""

import fcntl
import os
import resource
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from losslab.errors import LabError
from losslab.runs.folder import JOBS, SUMMARY, RunFolder

_SPARE_DESCRIPTORS = 512
"""The number of file descriptors that `lock_all` leaves for other files."""
_OPEN_MAX = 10_240
"""The largest number of file descriptors that macOS allows, although it says that there is no limit."""


class FolderTakenError(LabError):
    """The folder of a new run or sweep already contains files, or another process has just claimed it."""


def claim(path: Path, first_file: str = "train.log") -> list[Path]:
    """Create the folder of a new run or sweep. If two processes claim the same folder, only one of them gets it.

    Args:
        path: the folder, which must be empty or missing.
        first_file: the file that both processes try to create; the process that creates it gets the folder.

    Returns:
        The folders that were created, innermost first, for `discard`.

    Raises:
        FolderTakenError: the folder is not empty or is a file, or another process has just claimed it.
        LabError: the folder is not writable, or the disk is full.
    """
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            problem = "already contains a run" if RunFolder(path).config.exists() else "is not empty"
            raise FolderTakenError(f"{path} {problem}: set run_dir to another folder")
        (path / first_file).touch(exist_ok=False)
        _check_space(path / first_file)
    except FileExistsError as error:
        problem = f"another run has just claimed {path}" if path.is_dir() else f"{path} is a file"
        raise FolderTakenError(f"{problem}: set run_dir to another folder") from error
    except OSError as error:
        _remove_empty(created)
        raise LabError(
            f"cannot write to the run folder {path} ({error.strerror}): set run_dir to a writable folder"
        ) from error
    return created


def _check_space(file: Path) -> None:
    """Write 64 KiB to a file and truncate it, so that a full disk raises OSError now. If it does, remove the file."""
    try:
        file.write_bytes(bytes(1 << 16))
        os.truncate(file, 0)
    except OSError:
        file.unlink()
        raise


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # the folder is not empty, since another process wrote to it
            folder.rmdir()


def discard(path: Path, created: list[Path]) -> None:
    """Undo `claim` for a run that was refused. Do nothing if the run has written its configuration."""
    if RunFolder(path).config.exists() or not path.is_dir():
        return
    shutil.rmtree(path / ".hydra", ignore_errors=True)
    (path / "train.log").unlink(missing_ok=True)
    _remove_empty(created)


def discard_sweep(path: Path, created: list[Path]) -> None:
    """Undo `claim` for a sweep that was refused before its first job started."""
    for name in (SUMMARY, JOBS, "multirun.yaml"):
        (path / name).unlink(missing_ok=True)
    _remove_empty(created)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Lock a folder, if it exists and can be locked, until the `with` block or, for whatever reason, the process ends.

    Raises:
        LabError: another process holds the lock.
    """
    if not path.is_dir():
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError(f"another process is training in {path}: wait until it ends, or end it") from error
        except OSError:  # the file system does not support locks
            pass
        yield
    finally:
        os.close(descriptor)


@contextmanager
def lock_all(paths: Sequence[Path]) -> Iterator[None]:
    """Lock folders as `lock` does. Each takes a file descriptor: those for which none is left are not locked.

    Raises:
        LabError: another process holds one of the locks.
    """
    limit, largest = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < len(paths) + _SPARE_DESCRIPTORS:
        limit = min(len(paths) + _SPARE_DESCRIPTORS, _OPEN_MAX if largest == resource.RLIM_INFINITY else largest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, largest))
    count = len(paths) if limit == resource.RLIM_INFINITY else max(0, limit - _SPARE_DESCRIPTORS)
    with ExitStack() as stack:
        for path in paths[:count]:
            stack.enter_context(lock(path))
        yield


def is_unlocked(path: Path) -> bool:
    """Return whether no process holds the lock of a folder; False if the file system does not support locks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
