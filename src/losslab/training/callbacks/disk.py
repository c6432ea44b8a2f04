"""Files of a run for which the disk may have no room: training does not end for them, and its end misses none."""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from losslab.errors import LabError
from losslab.io import atomic
from losslab.runs import RunFolder

logger = logging.getLogger(__name__)

LATER = "training goes on, and it is written as soon as there is room"
WITHOUT = "the run goes on without it"


class Files:
    """What a callback writes. Of each file that cannot be written is spoken once.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._told: set[Path] = set()

    def attempt(self, path: Path, write: Callable[[], object], then: str = LATER) -> bool:
        """Write a file if that is possible → whether it was."""
        try:
            write()
        except OSError as error:
            self._tell(path, error, then)
            return False
        return True

    def require(self, path: Path, write: Callable[[], object]) -> None:
        """Write a file without which a run is not whole.

        Raises:
            LabError: it cannot be written.
        """
        try:
            write()
        except OSError as error:
            self._told.add(path)
            raise LabError(missing(self.folder, path, error)) from error

    @contextmanager
    def beside_an_error(self, path: Path) -> Iterator[None]:
        """Write a file although something has gone wrong: whatever goes wrong here must not take the place of that."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- an error of the device may come again, and not as an OSError
            self._tell(path, error, "so it lacks what came last")

    def draw(self, path: Path, image: "np.ndarray[Any, np.dtype[np.uint8]]") -> None:
        """Write an image as PNG, whole or not at all; a figure that is missing is no reason to end."""
        from PIL import Image  # noqa: PLC0415

        content = io.BytesIO()
        Image.fromarray(image).save(content, format="PNG")
        self.attempt(path, lambda: atomic.write_bytes(path, content.getvalue()), WITHOUT)

    def _tell(self, path: Path, error: Exception, then: str) -> None:
        if path not in self._told:
            self._told.add(path)
            logger.warning("%s was not written (%s): %s", path, reason(error), then)


def reason(error: Exception) -> str:
    """Why something could not be written, in one line."""
    said = error.strerror if isinstance(error, OSError) else None
    return said or " ".join(str(error).split()) or type(error).__name__


def missing(folder: RunFolder, path: Path, error: OSError) -> str:
    """What to say of a run that cannot end without a file."""
    return f"cannot write {path} ({reason(error)}): free some space, then python train.py resume={folder.path}"
