"""Finds the image files in a folder, and decodes each as the square RGB image that a network gets."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

from losslab.errors import LabError, message_of
from losslab.io.untrusted import open_regular_file

WHITE = (255, 255, 255)
_NEVER_DECODED = frozenset({"EPS", "IPTC", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
"""Formats that PIL opens, but decodes with other programs (EPS, or IPTC that contains EPS), or not at all."""
_COMMON = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_TIFF_BITS, _TIFF_WHITE_IS = 258, 262  # BitsPerSample; PhotometricInterpretation, 0 if white is 0
_HIDDEN = "hidden"
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}


@cache
def readable_formats() -> dict[str, str]:
    """Return the format of each file ending that PIL, with its registered plugins, can decode: {".png": "PNG", ...}."""
    Image.init()
    return {
        ending: name
        for ending, name in Image.registered_extensions().items()
        if name not in _NEVER_DECODED and (name in Image.OPEN or name == "MPO")  # JPEG's plugin opens MPO
    }


class FoundFiles(NamedTuple):
    """The files in a folder and its subfolders."""

    images: list[str]
    """Paths of the image files relative to the folder, sorted."""
    passed_over: Counter[str]
    """Number of all other files by ending, such as {".heic": 9}."""


def find_images(folder: Path) -> FoundFiles:
    """Find all files whose ending PIL can decode, in a folder and its subfolders. Links are followed, except in loops.

    Raises:
        LabError: a folder cannot be read.
    """
    found = FoundFiles([], Counter())
    try:
        ancestors = {_identity(each) for each in (folder, *folder.resolve().parents)}
        _search(folder, "", ancestors, tuple(readable_formats()), found)
    except OSError as error:
        raise LabError(f"cannot read the folder {error.filename or folder} ({error.strerror or error})") from error
    found.images.sort()
    return found


def _search(
    folder: Path, prefix: str, ancestors: set[tuple[int, int]], endings: tuple[str, ...], to: FoundFiles
) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name.lower() in _SYSTEM_FILES:
                to.passed_over[_HIDDEN] += not entry.is_dir()
            elif entry.is_dir():
                identity = _identity(entry)
                if identity in ancestors:
                    to.passed_over["link to a folder around it"] += 1
                else:
                    _search(Path(entry), f"{prefix}{name}/", ancestors | {identity}, endings, to)
            elif not entry.is_file():
                to.passed_over["broken link" if entry.is_symlink() else "pipe, socket or device"] += 1
            elif name.lower().endswith(endings):
                to.images.append(prefix + name)
            else:
                to.passed_over[PurePath(name).suffix.lower() or "without an ending"] += 1


def _identity(folder: os.PathLike[str]) -> tuple[int, int]:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def describe_passed_over(passed_over: Counter[str], sentence: str = "{}") -> str:
    """Put a description such as "9 .heic, 1 hidden" into a sentence. Return "" if there are none but hidden files."""
    if set(passed_over) <= {_HIDDEN}:
        return ""
    kinds = sorted(passed_over.items(), key=lambda each: (-each[1], each))
    return sentence.format(", ".join(f"{count:,} {kind}" for kind, count in kinds if count))


def parse_background(background: str | Sequence[int] | None) -> tuple[int, int, int] | None:
    """Convert a colour as PIL reads it ("white", "#ff8000"), or three numbers, to three numbers from 0 to 255.

    None stays None. Raises LabError for anything else.
    """
    if background is None:
        return None
    try:
        colour = ImageColor.getrgb(background) if isinstance(background, str) else tuple(background)
    except (TypeError, ValueError):
        colour = ()
    if len(colour) != 3 or not all(type(value) is int and 0 <= value <= 255 for value in colour):
        raise LabError(
            f"data.background must be a colour such as white or '#ff8000', three numbers from 0 to 255 such as "
            f"[255,128,0], or null: got {background!r}"
        )
    red, green, blue = colour
    return red, green, blue


class Decoded(NamedTuple):
    """A decoded image."""

    pixels: Tensor
    """uint8 (side, side, 3)."""
    transparent: bool
    """Whether a part of the image in the file is transparent."""


def decode(path: Path, side: int, background: tuple[int, int, int] | None = WHITE) -> Decoded:
    """Decode an image file as RGB, resize its shorter side to `side`, and crop the centre.

    Transparent parts are laid over `background`; if it is None, alpha is ignored, which shows the hidden colours. Of
    an animation or a file with several pages, the first image is decoded. Resizes and crops as torchvision's Resize
    and CenterCrop do, applies the EXIF orientation, and keeps the upper 8 bits of 16-bit images. Gamma and colour
    profiles are ignored, as by torchvision.

    Raises:
        LabError: the file cannot be decoded. The message names it.
    """
    from torchvision.transforms import v2  # noqa: PLC0415 -- half a second to import

    formats = dict.fromkeys((*_COMMON, *readable_formats().values()))
    formats.pop("MPO", None)
    try:
        with open_regular_file(path) as file, Image.open(file, formats=tuple(formats)) as image:
            colour, transparent = _to_rgb(image, background)
        _check_resized(colour.size, side)
    except UnidentifiedImageError as error:
        problem = f"cannot read the image {path} (PIL decodes no such format)"
        raise LabError(f"{problem}: convert, repair or remove it") from error
    except Exception as error:
        # PIL raises OSError, SyntaxError, struct.error, zlib.error and others for damaged files.
        raise LabError(f"cannot read the image {path} ({message_of(error)}): repair or remove it") from error
    pixels: Tensor = v2.Compose([v2.Resize(side), v2.CenterCrop(side), v2.PILToTensor()])(colour)
    return Decoded(pixels.permute(1, 2, 0).contiguous(), transparent)


def _check_resized(size: tuple[int, int], side: int) -> None:
    """Raise ValueError if an image whose shorter side becomes `side` is too large for PIL's limit."""
    pixels = side * (side * max(size) // min(size))
    if Image.MAX_IMAGE_PIXELS is not None and pixels > 2 * Image.MAX_IMAGE_PIXELS:
        width, height = size
        raise ValueError(f"{width}×{height} pixels with the shorter side resized to {side} become {pixels:,} pixels")


def _to_rgb(image: Image.Image, background: tuple[int, int, int] | None) -> tuple[Image.Image, bool]:
    """Convert to RGB in the orientation of the EXIF data. Also return whether a part is transparent."""
    _rescale_transparency(image)
    upright = _to_eight_bits(_upright(image), image)
    if upright.mode == "La":
        upright = upright.convert("LA")  # PIL converts La to nothing else
    if upright.has_transparency_data:
        with_alpha = upright.convert("RGBA")
        if with_alpha.getchannel("A").getextrema() != (255, 255):
            if background is not None:
                upright = Image.alpha_composite(Image.new("RGBA", with_alpha.size, background), with_alpha)
            return upright.convert("RGB"), True
    return upright.convert("RGB"), False


def _rescale_transparency(image: Image.Image) -> None:
    """Bring the transparent grey value or colour of a PNG file, which has 2 to 16 bits a channel, to 8 bits.

    PIL brings only the pixels to 8 bits.
    """
    value, tile = image.info.get("transparency"), getattr(image, "tile", None)
    raw_mode = tile[0].args if tile else ""
    if raw_mode == "RGB;16B" and isinstance(value, tuple):
        image.info["transparency"] = tuple(each >> 8 for each in value)
    elif raw_mode in ("L;2", "L;4") and isinstance(value, int):
        image.info["transparency"] = value * (85 if raw_mode == "L;2" else 17)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. Damaged EXIF data are ignored, as by viewers."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 -- PIL raises many types
        return image


def _to_eight_bits(image: Image.Image, file: Image.Image) -> Image.Image:
    """Scale 16-bit grey values to 8 bits; PIL's own conversion would clip them at 255. `file` is the opened image."""
    wide_formats = {"I;16": {"PNG", "TIFF", "JPEG2000"}, "I": {"PNG", "PPM"}}  # the mode depends on the version of PIL
    mode = image.mode[:4]
    if file.format in wide_formats.get(mode, ()):
        wide = np.asarray(image).astype(np.uint32)
        tags = getattr(file, "tag_v2", {})
        if tags.get(_TIFF_BITS) == (12,):
            wide <<= 4
        if tags.get(_TIFF_WHITE_IS) == 0:
            wide = 65535 - wide
        grey = Image.fromarray((wide >> 8).astype(np.uint8))
        value = image.info.get("transparency")
        if value is not None:
            grey = Image.merge("LA", (grey, Image.fromarray(np.where(wide == value, 0, 255).astype(np.uint8))))
        return grey
    if mode in {"I;16", "I", "F"}:
        raise ValueError(f"mode {image.mode} does not define which value is white, save it with 8 or 16 bits")
    return image


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppress PIL's warnings, such as about damaged EXIF data, or about images of over 89 million pixels.

    PIL still raises an error for images of over 179 million pixels.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
