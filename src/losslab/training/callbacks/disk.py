"""Writes a run's files to a disk that may be full: training continues, and callbacks may try again later."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from losslab.errors import LabError, message_of
from losslab.runs import RunFolder

logger = logging.getLogger(__name__)

_RETRIED = "training continues, and it is written as soon as there is space"
SKIPPED = "the run continues without it"
"""The end of a warning about a file that is not written later."""


class BestEffortWriter:
    """Writes a callback's files into the run folder, and logs one warning for each file that cannot be written."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._warned: set[Path] = set()

    def attempt(self, path: Path, write: Callable[[], object], consequence: str = _RETRIED) -> bool:
        """Call `write` for the file at `path`, and return whether it succeeded. `consequence` ends a warning if not."""
        try:
            write()
        except OSError as error:
            self._warn(path, error, consequence)
            return False
        return True

    def require(self, path: Path, write: Callable[[], object]) -> None:
        """Call `write` for a file at `path` that a finished run must have.

        Raises:
            LabError: the file cannot be written.
        """
        try:
            write()
        except OSError as error:
            self._warned.add(path)
            raise LabError(cannot_write_message(self.folder, path, error)) from error

    @contextmanager
    def during_exception(self, path: Path) -> Iterator[None]:
        """Log errors of the block that writes `path`, so that they do not replace the exception being handled."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- not only OSError: an error of the GPU may occur again
            self._warn(path, error, "it lacks the newest values")

    def _warn(self, path: Path, error: Exception, consequence: str) -> None:
        if path not in self._warned:
            self._warned.add(path)
            logger.warning("%s was not written (%s): %s", path, describe_error(error), consequence)


def describe_error(error: Exception) -> str:
    """Return the reason why a file could not be written, in one line."""
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or message_of(error)


def cannot_write_message(folder: RunFolder, path: Path, error: OSError) -> str:
    """Return the error message for a file that a finished run must have."""
    reason = describe_error(error)
    return f"cannot write {path} ({reason}): free some space, then run `python train.py resume={folder.path}`"
