"""Image files, decoded when they are asked for."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from rich import get_console
from rich.progress import track
from torch import Tensor

from losslab.data.batch import Examples
from losslab.data.machine import cores
from losslab.errors import LabError
from losslab.io.untrusted import open_regular_file

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""Of these endings. PIL looks at the content, and hands some of its others to programs (Ghostscript)."""


class ImageFiles:
    """A split of images that lie on disk: a source of examples, each decoded when it is taken.

    Args:
        folder: in which they lie.
        paths: of the images, relative to it.
        labels: their classes, one each.
        side: of the square that an image becomes, in pixels.
    """

    device = torch.device("cpu")

    def __init__(self, folder: Path, paths: Sequence[str], labels: Sequence[int], side: int) -> None:
        self.folder, self.side = folder, side
        # One array, not a million objects: worker processes share the pages of what nobody counts references to.
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.target = torch.tensor(labels)

    @property
    def size(self) -> int:
        """How many images there are."""
        return len(self.paths)

    @property
    def shape(self) -> torch.Size:
        """Of a decoded image: (height, width, channels)."""
        return torch.Size((self.side, self.side, 3))

    @property
    def nbytes(self) -> int:
        """What all of them would take of memory, decoded."""
        return self.size * self.shape.numel()

    def take(self, rows: Tensor) -> Examples:
        """Decode the images of these rows, one after the other.

        Raises:
            LabError: a file cannot be read as an image; the message names it.
        """
        with allow_large_images():
            return self._examples(rows, map(self._read, rows.tolist()))

    def read(self, rows: Tensor, purpose: str) -> Examples:
        """Decode many images in as many threads as there are cores, with a bar where there is a terminal.

        Raises:
            LabError: as `take` does.
        """
        hidden = not get_console().is_terminal
        with allow_large_images(), ThreadPoolExecutor(cores()) as threads:
            decoded = threads.map(self._read, rows.tolist())
            try:
                return self._examples(rows, track(decoded, purpose, len(rows), transient=True, disable=hidden))
            finally:
                threads.shutdown(cancel_futures=True)  # after a file that cannot be read, no others are

    def _examples(self, rows: Tensor, decoded: Iterable[Tensor]) -> Examples:
        images = torch.empty(len(rows), *self.shape, dtype=torch.uint8)
        for place, image in enumerate(decoded):
            images[place] = image
        target = self.target[rows]
        return Examples(images, target, target, rows)

    def _read(self, row: int) -> Tensor:
        return decode(self.folder / os.fsdecode(self.paths[row]), self.side)


def decode(path: Path, side: int) -> Tensor:
    """An image file in colour, its shorter side resized to `side` and the middle cut out → uint8 (side, side, 3).

    As torchvision's Resize and CenterCrop do; turned as its EXIF data say; of 16 bits the upper 8.

    Raises:
        LabError: it cannot be read; the message names it.
    """
    from torchvision.transforms import v2  # noqa: PLC0415 -- half a second to import

    try:
        with open_regular_file(path) as file, Image.open(file, formats=_FORMATS) as image:
            colour = _eight_bits(ImageOps.exif_transpose(image), image.format).convert("RGB")
    except UnidentifiedImageError as error:
        raise LabError(
            f"cannot read the image {path} (it is none of {', '.join(_FORMATS)}): repair or remove it"
        ) from error
    except Exception as error:
        # PIL raises whatever the damage led it to: OSError, SyntaxError, struct.error, zlib.error, ...
        raise LabError(f"cannot read the image {path} ({' '.join(str(error).split())}): repair or remove it") from error
    small = v2.Compose([v2.Resize(side), v2.CenterCrop(side), v2.PILToTensor()])(colour)
    pixels: Tensor = small
    return pixels.permute(1, 2, 0).contiguous()


def _eight_bits(image: Image.Image, kind: str | None) -> Image.Image:
    """Scale grey values of 16 bits, which PIL would cut off at 255."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind == "PNG"):  # the mode depends on PIL's version
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray((wide >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        raise ValueError(f"mode {image.mode} does not say what is white, save it with 8 or 16 bits")
    return image


@contextmanager
def allow_large_images() -> Iterator[None]:
    """Without PIL's warning about images of over 89 million pixels, which are one's own; it refuses those of 179."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
