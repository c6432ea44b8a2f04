"""`ImageFolder`: a user's own images, with one folder for each class, decoded into memory or batch by batch."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from rich import get_console
from rich.progress import track
from torch import Tensor

from losslab.data import random_keys
from losslab.data.batch import SPLITS, DataSpec, Examples, Source
from losslab.data.image_files import (
    Decoded,
    decode,
    describe_passed_over,
    find_images,
    parse_background,
    suppress_warnings,
)
from losslab.data.machine import available_memory, cores, format_bytes
from losslab.data.module import ExperimentDataModule
from losslab.data.transforms import Augment, Normalise
from losslab.errors import LabError
from losslab.targets import Kind, Task

logger = logging.getLogger(__name__)
_SAMPLE = 5_000
"""Number of training images from which mean and std are estimated, to within a hundredth of a standard deviation."""


class ImageFiles:
    """A split of image files, which are decoded when they are read.

    `paths` are relative to `folder`. Images are resized and cropped to squares of `side` × `side` pixels; for
    `background` see `decode`.
    """

    device = torch.device("cpu")
    transparent = 0
    """Number of images with transparent parts among those that `read` has decoded."""

    def __init__(
        self,
        folder: Path,
        paths: Sequence[str],
        labels: Sequence[int],
        side: int,
        background: tuple[int, int, int] | None = None,
    ) -> None:
        self.folder, self.side, self.background = folder, side, background
        # An array, because reference counts of a million str objects would make each forked worker copy the pages.
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.target = torch.tensor(labels)
        self.size, self.shape = len(paths), torch.Size((side, side, 3))  # (height, width, channels)
        self.nbytes = self.size * self.shape.numel()  # memory that all decoded images take

    def take(self, rows: Tensor) -> Examples:
        """Decode the images in these rows. Raises LabError, which names the file, if an image cannot be read."""
        with suppress_warnings():
            return self._examples(rows, map(self._decode, rows.tolist()))

    def read(self, rows: Tensor, description: str) -> Examples:
        """Decode many images like `take`, in one thread per core, with a progress bar `description` on a terminal."""
        hidden = not get_console().is_terminal
        with suppress_warnings(), ThreadPoolExecutor(cores()) as threads:
            decoded = threads.map(self._decode, rows.tolist())
            try:
                return self._examples(rows, track(decoded, description, len(rows), transient=True, disable=hidden))
            finally:
                threads.shutdown(cancel_futures=True)  # if a file cannot be read, decode no others

    def _examples(self, rows: Tensor, decoded: Iterable[Decoded]) -> Examples:
        images = torch.empty(len(rows), *self.shape, dtype=torch.uint8)
        for position, (pixels, transparent) in enumerate(decoded):
            images[position] = pixels
            self.transparent += transparent
        target = self.target[rows]
        return Examples(images, target, target, rows)

    def _decode(self, row: int) -> Decoded:
        return decode(self.folder / os.fsdecode(self.paths[row]), self.side, self.background)


class ImageFolder(ExperimentDataModule):
    """Images in DIR/train/CLASS, DIR/val/CLASS and DIR/test/CLASS, in memory as uint8 if they fit.

    The classes are the folders in train/ whose names do not begin with a dot, in alphabetical order. The shorter side
    of an image is resized to `size` and the centre is cropped, as by torchvision's Resize and CenterCrop. Images that
    do not fit into memory are decoded during training, usually by worker processes; the batches are bit-identical.
    All files that PIL decodes are read, also in subfolders and through links; see `find_images`.

    Args:
        dir: folder that contains train/, val/ and test/.
        size: side of the resized images in pixels.
        crop, flip, cutout: augmentation of the training images; see `Augment`.
        background: colour under transparent parts, as PIL reads it ("white", "#ff8000") or as three numbers from 0 to
            255. None to ignore transparency, as runs did that have no such option: the network gets hidden colours.
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
        background: str | Sequence[int] | None = "white",
        in_memory: bool | None = None,
        workers: int | None = None,
        batch_size: int | None = 128,
        eval_batch_size: int | None = 500,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        self.dir, self.size, self.in_memory = Path(dir).expanduser(), size, in_memory
        self.background = parse_background(background)
        if size < 1:
            raise LabError(f"data.size must be 1 or more pixels, got {size}")
        if in_memory not in (True, False, None) or not (workers is None or (isinstance(workers, int) and workers >= 0)):
            raise LabError(
                f"data.in_memory must be true, false or null, and data.workers must be 0 or more, or null (automatic): "
                f"got {in_memory!r} and {workers!r}"
            )
        self.workers = min(8, cores()) if workers is None else workers
        self.augment = Augment(crop, flip=flip, cutout=cutout) if crop or flip or cutout else None
        _check_splits(self.dir)
        folder = self.dir / "train"
        names, others = _list_classes(folder)
        if not names:
            seen = describe_passed_over(others, ", but {}")
            raise LabError(
                f"{folder} contains no folders{seen}: put a folder for each class into train/, val/ and test/"
            )
        inner = _list_classes(folder / names[0])[0] if len(names) == 1 else []
        if inner:
            some = ", ".join(inner[:3])
            logger.warning("%s contains one class, %s: move %s ... up if these are the classes", folder, names[0], some)
        self.spec = DataSpec(Task.MULTICLASS, Kind.INDEX, (3, size, size), targets=len(names), class_names=tuple(names))

    def load(self) -> Mapping[str, Source]:
        files = {split: self._find(split) for split in SPLITS}
        # The sample depends neither on the seed nor on `in_memory`, so the normalisation does not either.
        random = random_keys.generator(0, random_keys.STATISTICS)
        sample = torch.randperm(files["train"].size, generator=random)[:_SAMPLE]
        if not self._fits_in_memory(files):
            self.transform = Normalise.from_images(files["train"].read(sample, "measuring training images").inputs)
            self._report_transparent(files["train"].transparent, f"{len(sample):,} sampled training images")
            return files
        held = {split: each.read(torch.arange(each.size), f"reading {split} images") for split, each in files.items()}
        transparent = sum(each.transparent for each in files.values())
        self._report_transparent(transparent, f"{sum(each.size for each in files.values()):,} images")
        self.transform = Normalise.from_images(held["train"].inputs[sample])
        return held

    def _report_transparent(self, count: int, of: str) -> None:
        if count and self.background is None:
            images = f"{count:,} of {of} have transparent parts"
            logger.warning("%s; the network gets their hidden colours (data.background=null)", images)
        elif count:
            colour = ", ".join(map(str, self.background or ()))
            logger.info("%s of %s have transparent parts, laid over RGB %s (data.background)", f"{count:,}", of, colour)

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
        names, outside = _list_classes(folder)
        found = {name: find_images(folder / name) for name in names}
        for name in names:
            if name not in classes:
                raise LabError(
                    f"{folder / name} has no counterpart in {self.dir / 'train'}: every class must have training images"
                )
        passed_over = sum((each.passed_over for each in found.values()), outside)
        if not any(each.images for each in found.values()):
            raise LabError(f"no images in {folder}/CLASS/{describe_passed_over(passed_over, ' (passed over: {})')}")
        if description := describe_passed_over(passed_over):
            logger.warning("%s: passed over %s", folder, description)
        missing = ", ".join(
            name + describe_passed_over(found[name].passed_over if name in found else Counter(), " (passed over: {})")
            for name in classes
            if name not in found or not found[name].images
        )
        if missing and split == "train":
            raise LabError(
                f"{folder} contains no images of {missing}: put images into the folder of the class, or remove that "
                f"folder, as a class without training images cannot be learnt"
            )
        images = {name: found[name].images if name in found else [] for name in classes}
        paths = [f"{name}/{path}" for name in classes for path in images[name]]
        labels = [label for label, name in enumerate(classes) for _ in images[name]]
        return ImageFiles(folder, paths, labels, self.size, self.background)


def _check_splits(folder: Path) -> None:
    """Raise LabError unless the folder contains train, val and test. The message says what it contains instead."""
    missing = [split for split in SPLITS if not (folder / split).is_dir()]
    if not missing:
        return
    problem = f"{folder / missing[0]} is not a folder"
    needed = "data.dir must contain train/, val/ and test/, each with a folder for each class"
    if not folder.is_dir():
        raise LabError(f"{problem}, as {folder} {'is a file' if folder.exists() else 'does not exist'}: {needed}")
    inside = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
    hint = f"it contains {', '.join(inside[:5])}{', ...' * (len(inside) > 5)}" if inside else "it is empty"
    whole = [
        each
        for each in (*folder.absolute().parents[:2], *(folder / name for name in inside))
        if all((each / split).is_dir() for split in SPLITS)
    ]
    similar = [name for name in inside if name.lower().startswith(missing[0])]
    if whole:
        hint += f"; set data.dir={whole[0]}"
    elif similar:
        hint += f"; rename {similar[0]} to {missing[0]}/"
    raise LabError(f"{problem}: {needed}; {hint}")


def _list_classes(folder: Path) -> tuple[list[str], Counter[str]]:
    """List the class folders in a split in alphabetical order, and count other files. Hidden names are left out.

    Raises:
        LabError: a link is broken, which may have been a class, or leads to a folder around it.
    """
    names, others = [], Counter[str]()
    for path in folder.iterdir():
        if path.name.startswith("."):  # Jupyter creates .ipynb_checkpoints, and macOS creates ._NAME
            continue
        if path.is_dir():
            if path.is_symlink() and folder.resolve().is_relative_to(path.resolve()):
                raise LabError(f"{path} is a link to {path.resolve()}, a folder around it: remove it")
            names.append(path.name)
        elif path.is_symlink() and not path.exists():
            raise LabError(f"{path} is a link to {path.readlink()}, which does not exist: repair or remove it")
        else:
            others[f"{path.suffix.lower() or 'file'} outside of the class folders"] += 1
    return sorted(names), others
