"""A folder for a new run or sweep: taken before anything is computed, given back where nothing began."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from losslab.errors import LabError
from losslab.runs.folder import RunFolder
from losslab.runs.search import SUMMARY


class TakenError(LabError):
    """Another run has the folder."""


def claim(path: Path, first: str = "train.log") -> list[Path]:
    """Make the folder of a new run with its first file, before anything is computed or written.

    Whoever creates that file has the folder: of two runs that start into the same one, one is refused.

    Returns:
        The folders that did not exist before, innermost first: what `discard` may remove again.

    Raises:
        TakenError: it is not empty, or another run has just taken it.
        LabError: it cannot be made or written to.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            what = "already holds a run" if RunFolder(path).config.exists() else "is not empty"
            raise TakenError(f"{path} {what}: set run_dir to another folder")
        (path / first).touch(exist_ok=False)
        _write_as_much_as_a_run_begins_with(path / first)
    except FileExistsError as error:
        raise TakenError(f"{path} was taken by another run a moment ago: set run_dir to another folder") from error
    except OSError as error:
        _remove(made)
        raise LabError(
            f"cannot write to the run folder {path} ({error.strerror}): set run_dir to a folder you may write"
        ) from error
    return made


def _write_as_much_as_a_run_begins_with(file: Path) -> None:
    """Find out now whether the disk is full.

    Raises:
        OSError: it is. The file is not there any more.
    """
    try:
        with file.open("wb") as there:
            there.write(bytes(1 << 16))
            there.flush()
            there.truncate(0)
    except OSError:
        file.unlink()
        raise


def _remove(made: list[Path]) -> None:
    for folder in made:
        with contextlib.suppress(OSError):  # not empty: somebody else's too
            folder.rmdir()


def discard(path: Path, made: list[Path]) -> None:
    """Undo `claim` for a run that was refused before it began; one that has begun stays."""
    if RunFolder(path).config.exists() or not path.is_dir():
        return
    shutil.rmtree(path / ".hydra", ignore_errors=True)
    (path / "train.log").unlink(missing_ok=True)
    _remove(made)


def discard_sweep(path: Path, made: list[Path]) -> None:
    """Undo `claim` for a sweep that was refused before its first job began."""
    for name in (SUMMARY, "multirun.yaml"):
        (path / name).unlink(missing_ok=True)
    _remove(made)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Have the folder of a run to oneself, where it exists: two processes that train in one would spoil both.

    The lock ends with the process, however that ends.

    Raises:
        LabError: another process has it.
    """
    if not path.is_dir():
        yield
        return
    place = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(place)
        raise LabError(f"another process is training in {path}: wait until it ends, or end it") from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(place)


def abandoned(path: Path) -> bool:
    """Whether nobody holds this folder any more; False where the file system keeps no locks, and nobody can say."""
    place = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(place)
    return True
