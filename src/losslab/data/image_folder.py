"""One's own images, in a folder for each class."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from losslab.data import random_keys
from losslab.data.batch import DataSpec, Source
from losslab.data.image_files import EXTENSIONS, ImageFiles
from losslab.data.machine import available_memory, cores, format_bytes
from losslab.data.module import ExperimentDataModule
from losslab.data.transforms import Augment, Normalise
from losslab.errors import LabError
from losslab.targets import Kind, Task

logger = logging.getLogger(__name__)
_SAMPLE = 5_000
"""So many training images say what mean and deviation are: to within a hundredth of a deviation."""


class ImageFolder(ExperimentDataModule):
    """Images in DIR/train/CLASS, DIR/val/CLASS and DIR/test/CLASS, resized; in memory as bytes where they fit.

    Classes are the folders of train/, in alphabetical order; names that begin with a dot are passed over. The shorter
    side is resized to `size` and the middle cut out, as torchvision's Resize and CenterCrop do. Images that do not fit
    into memory are decoded by worker processes when they are needed, in the same batches to the last bit.

    Args:
        dir: the folder that holds train/, val/ and test/.
        size: side of the images in pixels.
        crop: pixels of padding for the random crop in training; 0 for none.
        flip: mirror training images at random.
        cutout: side of the square that cutout covers in training; 0 for none.
        in_memory: hold all images in memory; None where they take at most half of what is free.
        workers: processes that decode ahead where images are not held in memory; None for one a core, at most 8.
        batch_size: images in a training batch; None for all.
        eval_batch_size: images in a validation or test batch.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        dir: str | os.PathLike[str],  # noqa: A002 -- it is data.dir on the command line
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
            raise LabError(f"data.size is a number of pixels, 1 or more: got {size}")
        if in_memory not in (True, False, None) or not (workers is None or (isinstance(workers, int) and workers >= 0)):
            raise LabError(
                f"data.in_memory is true, false or null and data.workers a number from 0 or null (for as many as "
                f"suit): got {in_memory!r} and {workers!r}"
            )
        self.workers = min(8, cores()) if workers is None else workers
        self.augment = Augment(crop, flip=flip, cutout=cutout) if crop or flip or cutout else None
        names = tuple(path.name for path in _subfolders(self.dir / "train"))
        if not names:
            raise LabError(
                f"{self.dir / 'train'} holds no folders: data.dir needs one for each class in train/, val/ and test/"
            )
        self.facts = DataSpec(Task.MULTICLASS, Kind.INDEX, (3, size, size), targets=len(names), class_names=names)

    def load(self) -> Mapping[str, Source]:
        """Find all files, and decode them once where they fit into memory."""
        files = {split: self._find(split) for split in ("train", "val", "test")}
        train = files["train"]
        # Of both ways the same, so that they normalise alike. Not by the run's seed: losses are compared over several.
        rows = torch.randperm(train.size, generator=random_keys.generator(0, random_keys.STATISTICS))[:_SAMPLE]
        if not self._fit(files):
            self.transform = Normalise.from_images(train.read(rows, "measuring training images").inputs)
            return files
        held = {split: some.read(torch.arange(some.size), f"reading {split} images") for split, some in files.items()}
        self.transform = Normalise.from_images(held["train"].inputs[rows])
        return held

    def _fit(self, files: dict[str, ImageFiles]) -> bool:
        """Whether the images are to be held in memory, which is said with the reason."""
        count, needed = (sum(values) for values in zip(*((f.size, f.nbytes) for f in files.values()), strict=True))
        free = available_memory()
        fit = 2 * needed <= free if self.in_memory is None else self.in_memory
        way = "held in memory" if fit else f"decoded as they are needed, {self.workers} workers ahead"
        why = f"{format_bytes(needed)} of {format_bytes(free)} free"
        asked = "" if self.in_memory is None else f", data.in_memory={str(self.in_memory).lower()}"
        logger.info("%s images are %s (%s%s)", f"{count:,}", way, why, asked)
        return fit

    def _find(self, split: str) -> ImageFiles:
        paths: list[str] = []
        labels: list[int] = []
        for folder in _subfolders(self.dir / split):
            if folder.name not in self.facts.class_names:
                raise LabError(
                    f"{folder} has no counterpart in {self.dir / 'train'}: every class must have training images"
                )
            found = sorted(find_images(folder))
            paths += (f"{folder.name}/{path}" for path in found)
            labels += [self.facts.class_names.index(folder.name)] * len(found)
        if not paths:
            raise LabError(f"no images in {self.dir / split}/CLASS/ (looked for {', '.join(EXTENSIONS)})")
        without = sorted(set(self.facts.class_names) - {self.facts.class_names[label] for label in set(labels)})
        if without and split == "train":
            raise LabError(
                f"{self.dir / split} holds no images of {', '.join(without)}: put some there or remove the folder, "
                f"as a class without training images cannot be learnt"
            )
        if without:
            logger.warning("%s holds no images of %s", self.dir / split, ", ".join(without))
        return ImageFiles(self.dir / split, paths, labels, self.size)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise LabError(
            f"{folder} is no folder: data.dir must hold train/, val/ and test/, a folder for each class in each"
        )
    # Jupyter leaves .ipynb_checkpoints behind, and a Mac ._NAME beside each NAME.
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def find_images(folder: Path) -> list[str]:
    """The files below a folder that end like images, by their paths in it."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(place).relative_to(folder)
        found += [
            str(inside / name) for name in names if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    return found
