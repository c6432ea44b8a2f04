"""`ImageFolder`: a user's own images, with one folder for each class, decoded into memory or batch by batch."""

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from rich import get_console
from rich.progress import track
from torch import Tensor

from losslab.data import random_keys
from losslab.data.batch import DataSpec, Examples, Source
from losslab.data.machine import available_memory, cores, format_bytes
from losslab.data.module import ExperimentDataModule
from losslab.data.transforms import Augment, Normalise
from losslab.errors import LabError, message_of
from losslab.io.untrusted import open_regular_file
from losslab.targets import Kind, Task

logger = logging.getLogger(__name__)
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""The formats that PIL may decode, those of EXTENSIONS. It decodes some others with external programs (Ghostscript)."""
_SAMPLE = 5_000
"""Number of training images from which mean and std are estimated, to within a hundredth of a standard deviation."""


class ImageFiles:
    """A split of image files, which are decoded when they are read.

    `paths` are relative to `folder`. Images are resized and cropped to squares of `side` × `side` pixels.
    """

    device = torch.device("cpu")

    def __init__(self, folder: Path, paths: Sequence[str], labels: Sequence[int], side: int) -> None:
        self.folder, self.side = folder, side
        # An array, because reference counts of a million str objects would make each forked worker copy the pages.
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.target = torch.tensor(labels)
        self.size, self.shape = len(paths), torch.Size((side, side, 3))  # (height, width, channels)
        self.nbytes = self.size * self.shape.numel()  # memory that all decoded images take

    def take(self, rows: Tensor) -> Examples:
        """Decode the images in these rows. Raises LabError, which names the file, if an image cannot be read."""
        with allow_large_images():
            return self._examples(rows, map(self._decode, rows.tolist()))

    def read(self, rows: Tensor, description: str) -> Examples:
        """Decode many images like `take`, in one thread per core, with a progress bar `description` on a terminal."""
        hidden = not get_console().is_terminal
        with allow_large_images(), ThreadPoolExecutor(cores()) as threads:
            decoded = threads.map(self._decode, rows.tolist())
            try:
                return self._examples(rows, track(decoded, description, len(rows), transient=True, disable=hidden))
            finally:
                threads.shutdown(cancel_futures=True)  # if a file cannot be read, decode no others

    def _examples(self, rows: Tensor, decoded: Iterable[Tensor]) -> Examples:
        images = torch.empty(len(rows), *self.shape, dtype=torch.uint8)
        for position, image in enumerate(decoded):
            images[position] = image
        target = self.target[rows]
        return Examples(images, target, target, rows)

    def _decode(self, row: int) -> Tensor:
        return decode(self.folder / os.fsdecode(self.paths[row]), self.side)


class ImageFolder(ExperimentDataModule):
    """Images in DIR/train/CLASS, DIR/val/CLASS and DIR/test/CLASS, in memory as uint8 if they fit.

    The classes are the folders in train/ whose names do not begin with a dot, in alphabetical order. The shorter side
    of an image is resized to `size` and the centre is cropped, as by torchvision's Resize and CenterCrop. Images that
    do not fit into memory are decoded during training, usually by worker processes; the batches are bit-identical.

    Args:
        dir: folder that contains train/, val/ and test/.
        size: side of the resized images in pixels.
        crop, flip, cutout: augmentation of the training images; see `Augment`.
        in_memory: whether to hold all images in memory; None to do so if they take at most half of the free memory.
        workers: number of worker processes if the images are not in memory; None for one per core, at most 8.
        batch_size, eval_batch_size, seed: see `ExperimentDataModule`.
    """

    def __init__(
        self,
        dir: str | os.PathLike[str],  # noqa: A002 -- data.dir on the command line
        size: int = 32,
        crop: int = 4,
        *,
        flip: bool = True,
        cutout: int = 0,
        in_memory: bool | None = None,
        workers: int | None = None,
        batch_size: int | None = 128,
        eval_batch_size: int | None = 500,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        self.dir, self.size, self.in_memory = Path(dir).expanduser(), size, in_memory
        if size < 1:
            raise LabError(f"data.size must be 1 or more pixels, got {size}")
        if in_memory not in (True, False, None) or not (workers is None or (isinstance(workers, int) and workers >= 0)):
            raise LabError(
                f"data.in_memory must be true, false or null, and data.workers must be 0 or more, or null (automatic): "
                f"got {in_memory!r} and {workers!r}"
            )
        self.workers = min(8, cores()) if workers is None else workers
        self.augment = Augment(crop, flip=flip, cutout=cutout) if crop or flip or cutout else None
        names = tuple(path.name for path in _subfolders(self.dir / "train"))
        if not names:
            raise LabError(
                f"{self.dir / 'train'} contains no folders: put a folder for each class into train/, val/ and test/"
            )
        self.spec = DataSpec(Task.MULTICLASS, Kind.INDEX, (3, size, size), targets=len(names), class_names=names)

    def load(self) -> Mapping[str, Source]:
        files = {split: self._find(split) for split in ("train", "val", "test")}
        # The sample depends neither on the seed nor on `in_memory`, so the normalisation does not either.
        random = random_keys.generator(0, random_keys.STATISTICS)
        sample = torch.randperm(files["train"].size, generator=random)[:_SAMPLE]
        if not self._fits_in_memory(files):
            self.transform = Normalise.from_images(files["train"].read(sample, "measuring training images").inputs)
            return files
        held = {split: each.read(torch.arange(each.size), f"reading {split} images") for split, each in files.items()}
        self.transform = Normalise.from_images(held["train"].inputs[sample])
        return held

    def _fits_in_memory(self, files: dict[str, ImageFiles]) -> bool:
        """Decide whether to hold the images in memory, and log the decision."""
        count, needed = sum(each.size for each in files.values()), sum(each.nbytes for each in files.values())
        free = available_memory()
        fits = 2 * needed <= free if self.in_memory is None else self.in_memory
        decoder = f"{self.workers} worker{'s' * (self.workers > 1)}" if self.workers else "the main process"
        how = "held in memory" if fits else f"decoded during training by {decoder}"
        setting = "" if self.in_memory is None else f", data.in_memory={str(self.in_memory).lower()}"
        sizes = format_bytes(needed), format_bytes(free)
        logger.info("%s images are %s (%s needed, %s free%s)", f"{count:,}", how, *sizes, setting)
        return fits

    def _find(self, split: str) -> ImageFiles:
        folder, classes = self.dir / split, self.spec.class_names
        images = {subfolder.name: sorted(find_images(subfolder)) for subfolder in _subfolders(folder)}
        for name in images:
            if name not in classes:
                raise LabError(
                    f"{folder / name} has no counterpart in {self.dir / 'train'}: every class must have training images"
                )
        if not any(images.values()):
            raise LabError(f"no images in {folder}/CLASS/ (looked for {', '.join(EXTENSIONS)})")
        missing = ", ".join(name for name in classes if not images.get(name))
        if missing and split == "train":
            raise LabError(
                f"{folder} contains no images of {missing}: put images into the folder of the class, or remove that "
                f"folder, as a class without training images cannot be learnt"
            )
        if missing:
            logger.warning("%s contains no images of %s", folder, missing)
        paths = [f"{name}/{path}" for name in classes for path in images.get(name, ())]
        labels = [label for label, name in enumerate(classes) for _ in images.get(name, ())]
        return ImageFiles(folder, paths, labels, self.size)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise LabError(
            f"{folder} is not a folder: data.dir must contain train/, val/ and test/, each with a folder for each class"
        )
    # Jupyter creates .ipynb_checkpoints, and macOS creates ._NAME.
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def find_images(folder: Path) -> list[str]:
    """Find all files with an image extension in a folder and its subfolders → paths relative to the folder."""
    paths = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(parent).relative_to(folder)
        paths += [str(inside / name) for name in names if name.lower().endswith(EXTENSIONS) and name[0] != "."]
    return paths


def decode(path: Path, side: int) -> Tensor:
    """Decode an image file as RGB, resize its shorter side to `side`, crop the centre → uint8 (side, side, 3).

    Resizes and crops as torchvision's Resize and CenterCrop do, applies the EXIF orientation, and keeps the upper 8
    bits of 16-bit images. Raises LabError, which names the file, if the file cannot be read.
    """
    from torchvision.transforms import v2  # noqa: PLC0415 -- half a second to import

    try:
        with open_regular_file(path) as file, Image.open(file, formats=_FORMATS) as image:
            colour = _to_eight_bits(ImageOps.exif_transpose(image), image.format).convert("RGB")
    except UnidentifiedImageError as error:
        formats = ", ".join(_FORMATS)
        raise LabError(f"cannot read the image {path} (it is none of {formats}): repair or remove it") from error
    except Exception as error:
        # PIL raises OSError, SyntaxError, struct.error, zlib.error and others for damaged files.
        raise LabError(f"cannot read the image {path} ({message_of(error)}): repair or remove it") from error
    pixels: Tensor = v2.Compose([v2.Resize(side), v2.CenterCrop(side), v2.PILToTensor()])(colour)
    return pixels.permute(1, 2, 0).contiguous()


def _to_eight_bits(image: Image.Image, image_format: str | None) -> Image.Image:
    """Scale 16-bit grey values to 8 bits; PIL's own conversion would clip them at 255."""
    # The mode of a 16-bit PNG depends on the version of PIL.
    if image.mode.startswith("I;16") or (image.mode == "I" and image_format == "PNG"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray((wide >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        raise ValueError(f"mode {image.mode} does not define which value is white, save it with 8 or 16 bits")
    return image


@contextmanager
def allow_large_images() -> Iterator[None]:
    """Suppress PIL's warning about images of over 89 million pixels. PIL still raises an error for over 179 million."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
