"""CIFAR-10."""

import logging
import os
from functools import cache
from pathlib import Path

import torch

from losslab.data import cifar10_files
from losslab.data.batch import DataSpec, Examples
from losslab.data.module import ExperimentDataModule, split_rows
from losslab.data.transforms import Augment, Normalise
from losslab.errors import LabError
from losslab.targets import Kind, Task

logger = logging.getLogger(__name__)


class CIFAR10(ExperimentDataModule):
    """60,000 colour images of 32×32 pixels in 10 classes (Krizhevsky 2009), in memory as bytes.

    Validation is split from the 50,000 official training images; the official test set is the test set, on which
    nothing is ever trained or selected.

    Args:
        dir: folder that holds cifar-10-batches-py, or that is to hold it.
        url: a mirror of the archive; None for its public home.
        verify: insist on the official bytes. Without, a re-encoded copy is taken, with a warning.
        val_size: images split from training for validation.
        subset: train on this many images only, drawn at random; None for all. Validation and test stay whole.
        crop: pixels of padding for the random crop in training; 0 for none.
        flip: mirror training images at random.
        cutout: side of the square that cutout covers in training; 0 for none.
        reflect: pad with the image's own mirror image instead of black.
        alternate: mirror each training image in every second epoch instead of at random.
        batch_size: images in a training batch; None for all.
        eval_batch_size: images in a validation or test batch.
        split_seed: of the validation split and the subset. It is not the run's seed: runs stay comparable.
        seed: of order and augmentation.
    """

    facts = DataSpec(
        Task.MULTICLASS, Kind.INDEX, input_shape=(3, 32, 32), targets=10, class_names=cifar10_files.CLASSES
    )

    def __init__(
        self,
        dir: str | os.PathLike[str] = "data",  # noqa: A002 -- it is data.dir on the command line
        url: str | None = None,
        *,
        verify: bool = True,
        val_size: int = 5_000,
        subset: int | None = None,
        crop: int = 2,
        flip: bool = True,
        cutout: int = 0,
        reflect: bool = False,
        alternate: bool = False,
        batch_size: int | None = 128,
        eval_batch_size: int | None = 500,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        self.dir, self.url, self.verify = Path(dir).expanduser(), url, verify
        self.val_size, self.subset, self.split_seed = val_size, subset, split_seed
        augment = Augment(crop, flip=flip, cutout=cutout, reflect=reflect, alternate=alternate)
        self.augment = augment if crop or flip or cutout else None

    def prepare_data(self) -> None:
        """Download once, whoever asks first; nothing where that is not to be."""
        if self.may_download:
            cifar10_files.ensure_downloaded(self.dir, self.url, verify=self.verify)
        else:
            cifar10_files.require_present(self.dir)

    def load(self) -> dict[str, Examples]:
        """Read both official sets, split validation off, and take the subset."""
        if not self.verify:
            _say_unverified()
        images, labels = cifar10_files.read_batches(self.dir, cifar10_files.TRAIN, verify=self.verify)
        official = Examples.of(images, labels)
        train_rows, val_rows = self._split(len(labels))
        train = official.take(train_rows)
        self.transform = Normalise.from_images(train.inputs)
        test = Examples.of(*cifar10_files.read_batches(self.dir, cifar10_files.TEST, verify=self.verify))
        return {"train": train, "val": official.take(val_rows), "test": test}

    def _split(self, count: int) -> list[torch.Tensor]:
        room = count - self.val_size
        if self.subset is not None and not 1 <= self.subset <= room:
            raise LabError(
                f"data.subset must be 1 to {room:,} (the training images less data.val_size), got {self.subset:,}"
            )
        # Validation is drawn first, so that it is the same whatever the subset.
        val, train = split_rows(count, (self.val_size, room), self.split_seed)
        if self.subset is not None:
            train = train[split_rows(len(train), (self.subset,), self.split_seed)[0]]
        return [train, val]


@cache  # however many runs a command opens
def _say_unverified() -> None:
    logger.warning("data.verify=false: CIFAR-10 was not compared with the official files")
