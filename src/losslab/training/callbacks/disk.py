"""Writing a run's files to a disk that may be full: training continues, and writing is retried."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from losslab.errors import LabError
from losslab.io.figures import save_png
from losslab.runs import RunFolder

logger = logging.getLogger(__name__)

RETRIED = "training continues, and it is written as soon as there is room"
SKIPPED = "the run continues without it"


class BestEffortWriter:
    """Writes a callback's files, and logs one warning for each file that cannot be written.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._warned: set[Path] = set()

    def attempt(self, path: Path, write: Callable[[], object], consequence: str = RETRIED) -> bool:
        """Write a file and return whether this succeeded."""
        try:
            write()
        except OSError as error:
            self._warn(path, error, consequence)
            return False
        return True

    def require(self, path: Path, write: Callable[[], object]) -> None:
        """Write a file that a finished run must have.

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
        """Write a file while an exception is handled. Errors are logged, so that the exception is not masked."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- an error of the GPU may occur again, which is not an OSError
            self._warn(path, error, "it lacks the newest values")

    def write_png(self, path: Path, image: NDArray[np.uint8]) -> None:
        """Write an image (height, width, channels) as PNG, if there is room."""
        self.attempt(path, lambda: save_png(image, path), SKIPPED)

    def _warn(self, path: Path, error: Exception, consequence: str) -> None:
        if path not in self._warned:
            self._warned.add(path)
            logger.warning("%s was not written (%s): %s", path, describe_error(error), consequence)


def describe_error(error: Exception) -> str:
    """Return the reason why a file could not be written, in one line."""
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or " ".join(str(error).split()) or type(error).__name__


def cannot_write_message(folder: RunFolder, path: Path, error: OSError) -> str:
    """Return the error message for a file that a finished run must have."""
    return f"cannot write {path} ({describe_error(error)}): free some space, then python train.py resume={folder.path}"
