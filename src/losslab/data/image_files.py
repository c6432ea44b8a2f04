"""Image files as a `Source`: each image is decoded when a batch takes it."""

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
from losslab.errors import LabError, message_of
from losslab.io.untrusted import open_regular_file

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""The formats of EXTENSIONS. PIL detects formats by content, and passes some others to programs (Ghostscript)."""


class ImageFiles:
    """A split of image files.

    Args:
        folder: folder of the images.
        paths: paths relative to it.
        labels: class index of each image.
        side: side in pixels of the square that each image is resized and cropped to.
    """

    device = torch.device("cpu")

    def __init__(self, folder: Path, paths: Sequence[str], labels: Sequence[int], side: int) -> None:
        self.folder, self.side = folder, side
        # One array instead of a list of str: reference counts of a million objects would unshare forked memory pages.
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.target = torch.tensor(labels)
        self.size, self.shape = len(paths), torch.Size((side, side, 3))  # (height, width, channels)
        self.nbytes = self.size * self.shape.numel()  # of all images, decoded

    def take(self, rows: Tensor) -> Examples:
        """Decode the images of these rows.

        Raises:
            LabError: a file cannot be read as an image; the message names it.
        """
        with allow_large_images():
            return self._examples(rows, map(self._decode, rows.tolist()))

    def read(self, rows: Tensor, description: str) -> Examples:
        """Decode many images in one thread per core, with a progress bar on a terminal.

        Raises:
            LabError: as `take` does.
        """
        hidden = not get_console().is_terminal
        with allow_large_images(), ThreadPoolExecutor(cores()) as threads:
            decoded = threads.map(self._decode, rows.tolist())
            try:
                return self._examples(rows, track(decoded, description, len(rows), transient=True, disable=hidden))
            finally:
                threads.shutdown(cancel_futures=True)  # stop at the first file that cannot be read

    def _examples(self, rows: Tensor, decoded: Iterable[Tensor]) -> Examples:
        images = torch.empty(len(rows), *self.shape, dtype=torch.uint8)
        for position, image in enumerate(decoded):
            images[position] = image
        target = self.target[rows]
        return Examples(images, target, target, rows)

    def _decode(self, row: int) -> Tensor:
        return decode(self.folder / os.fsdecode(self.paths[row]), self.side)


def decode(path: Path, side: int) -> Tensor:
    """Decode an image file as RGB, resize its shorter side to `side`, crop the centre → uint8 (side, side, 3).

    Resizes and crops as torchvision's Resize and CenterCrop do. Applies the EXIF orientation; of 16-bit images keeps
    the upper 8 bits.

    Raises:
        LabError: the file cannot be read; the message names it.
    """
    from torchvision.transforms import v2  # noqa: PLC0415 -- half a second to import

    try:
        with open_regular_file(path) as file, Image.open(file, formats=_FORMATS) as image:
            colour = _to_eight_bits(ImageOps.exif_transpose(image), image.format).convert("RGB")
    except UnidentifiedImageError as error:
        raise LabError(
            f"cannot read the image {path} (it is none of {', '.join(_FORMATS)}): repair or remove it"
        ) from error
    except Exception as error:
        # PIL raises OSError, SyntaxError, struct.error, zlib.error and others for damaged files.
        raise LabError(f"cannot read the image {path} ({message_of(error)}): repair or remove it") from error
    pixels: Tensor = v2.Compose([v2.Resize(side), v2.CenterCrop(side), v2.PILToTensor()])(colour)
    return pixels.permute(1, 2, 0).contiguous()


def _to_eight_bits(image: Image.Image, image_format: str | None) -> Image.Image:
    """Scale 16-bit grey values to 8 bits; PIL's own conversion would clip them at 255."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image_format == "PNG"):  # depends on PIL's version
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray((wide >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        raise ValueError(f"mode {image.mode} does not say what is white, save it with 8 or 16 bits")
    return image


@contextmanager
def allow_large_images() -> Iterator[None]:
    """Suppress PIL's warning for images of over 89 million pixels; it still raises for over 179 million."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
