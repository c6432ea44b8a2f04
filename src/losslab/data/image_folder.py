"""One's own images, in a folder for each class."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from rich import get_console
from rich.progress import track
from torch import Tensor

from losslab.data.augment import Augment
from losslab.data.batch import Examples, Facts
from losslab.data.loader import Normalise
from losslab.data.module import MemoryDataModule
from losslab.errors import LabError
from losslab.targets import Kind, Task

logger = logging.getLogger(__name__)
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


class ImageFolder(MemoryDataModule):
    """Images in DIR/train/CLASS, DIR/val/CLASS and DIR/test/CLASS, resized and held in memory as bytes.

    Classes are the folders of train/, in alphabetical order. The shorter side is resized to `size` and the middle
    cut out, as torchvision's Resize and CenterCrop do.

    Args:
        dir: the folder that holds train/, val/ and test/.
        size: side of the images in pixels.
        crop: pixels of padding for the random crop in training; 0 for none.
        flip: mirror training images at random.
        cutout: side of the square that cutout covers in training; 0 for none.
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
        batch_size: int | None = 128,
        eval_batch_size: int | None = 500,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        self.dir, self.size = Path(dir).expanduser(), size
        if size < 1:
            message = f"data.size is a number of pixels, 1 or more: got {size}"
            raise LabError(message)
        self.augment = Augment(crop, flip=flip, cutout=cutout) if crop or flip or cutout else None
        names = tuple(sorted(path.name for path in _subfolders(self.dir / "train")))
        if not names:
            message = (
                f"{self.dir / 'train'} holds no folders: data.dir needs one for each class in train/, val/ and test/"
            )
            raise LabError(message)
        self.facts = Facts(Task.MULTICLASS, Kind.INDEX, (3, size, size), targets=len(names), class_names=names)

    def load(self) -> dict[str, Examples]:
        """Decode every image once, in as many threads as there are cores."""
        splits = {split: self._read(split) for split in ("train", "val", "test")}
        pixels = splits["train"].inputs
        # In parts: a float copy of all images at once would take four times their memory.
        sums = [(part.float().sum((0, 1, 2)), part.float().square().sum((0, 1, 2))) for part in pixels.split(1024)]
        mean, square = (torch.stack(parts).double().sum(0) * 3 / pixels.numel() for parts in zip(*sums, strict=True))
        variance = square - mean.square()
        self.transform = Normalise(mean, torch.where(variance > 1e-6, variance, 1.0).sqrt())
        return splits

    def _read(self, split: str) -> Examples:
        files: list[Path] = []
        labels: list[int] = []
        for folder in _subfolders(self.dir / split):
            if folder.name not in self.facts.class_names:
                message = f"{folder} has no counterpart in {self.dir / 'train'}: every class must have training images"
                raise LabError(message)
            found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS)
            files += found
            labels += [self.facts.class_names.index(folder.name)] * len(found)
        if not files:
            message = f"no images in {self.dir / split}/CLASS/ (looked for {', '.join(_ENDINGS)})"
            raise LabError(message)
        without = sorted(set(self.facts.class_names) - {self.facts.class_names[label] for label in set(labels)})
        if without:
            logger.warning("%s holds no images of %s", self.dir / split, ", ".join(without))
        with ThreadPoolExecutor() as threads:
            decoded = threads.map(self._decode, files)
            images = torch.stack(
                list(
                    track(
                        decoded,
                        f"reading {split} images",
                        len(files),
                        transient=True,
                        disable=not get_console().is_terminal,
                    )
                )
            )
        return Examples.of(images, torch.tensor(labels))

    def _decode(self, path: Path) -> Tensor:
        from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415 -- with torchvision, half a second to import
        from torchvision.transforms import v2  # noqa: PLC0415

        try:
            with Image.open(path) as image:
                image_rgb = ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            message = f"cannot read the image {path} ({error}): repair or remove it"
            raise LabError(message) from error
        resize = v2.Compose([v2.Resize(self.size), v2.CenterCrop(self.size), v2.PILToTensor()])
        pixels: Tensor = resize(image_rgb)
        return pixels.permute(1, 2, 0).contiguous()


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        message = f"{folder} is no folder: data.dir must hold train/, val/ and test/, a folder for each class in each"
        raise LabError(message)
    return sorted(path for path in folder.iterdir() if path.is_dir())
