"""CIFAR-10."""

import logging
import os
from functools import cache
from pathlib import Path

from losslab.data import cifar10_files
from losslab.data.batch import DataSpec, Examples
from losslab.data.module import ExperimentDataModule, split_rows
from losslab.data.transforms import Augment, Normalise
from losslab.errors import LabError
from losslab.targets import Kind, Task

logger = logging.getLogger(__name__)


class CIFAR10(ExperimentDataModule):
    """60,000 colour images of 32×32 pixels in 10 classes (Krizhevsky 2009), in memory as uint8.

    Validation is split from the 50,000 official training images; the official test set is the test split.

    Args:
        dir: parent folder of cifar-10-batches-py; the download goes here.
        url: URL of a mirror of the archive; None for the official one.
        verify: whether the files must be the official ones. If False, a re-encoded copy is accepted with a warning.
        val_size: number of validation images split from training.
        subset: number of training images, drawn at random; None for all. Validation and test stay whole.
        crop: padding of the random crop in training, in pixels; 0 for no crop.
        flip: mirror training images at random.
        cutout: side of the cutout square in training; 0 for no cutout.
        reflect: pad by reflection instead of with black.
        alternate: mirror each training image in every second epoch instead of at random.
        batch_size, eval_batch_size, seed: as for `ExperimentDataModule`.
        split_seed: seed of the validation split and the subset. Runs with different seeds share one split.
    """

    spec = DataSpec(Task.MULTICLASS, Kind.INDEX, input_shape=(3, 32, 32), targets=10, class_names=cifar10_files.CLASSES)

    def __init__(
        self,
        dir: str | os.PathLike[str] = "data",  # noqa: A002 -- data.dir on the command line
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
        if self.may_download:
            cifar10_files.ensure_downloaded(self.dir, self.url, verify=self.verify)
        else:
            cifar10_files.require_present(self.dir)

    def load(self) -> dict[str, Examples]:
        if not self.verify:
            _warn_unverified()
        official = Examples.of(*cifar10_files.read_batches(self.dir, cifar10_files.TRAIN, verify=self.verify))
        max_train = official.size - self.val_size
        if self.subset is not None and not 1 <= self.subset <= max_train:
            raise LabError(
                f"data.subset must be 1 to {max_train:,} (the training images minus data.val_size), got {self.subset:,}"
            )
        # Validation is drawn first, so it does not depend on the subset.
        val_rows, train_rows = split_rows(official.size, (self.val_size, max_train), self.split_seed)
        if self.subset is not None:
            train_rows = train_rows[split_rows(len(train_rows), (self.subset,), self.split_seed)[0]]
        train = official.take(train_rows)
        self.transform = Normalise.from_images(train.inputs)
        test = Examples.of(*cifar10_files.read_batches(self.dir, cifar10_files.TEST, verify=self.verify))
        return {"train": train, "val": official.take(val_rows), "test": test}


@cache  # once per process, however many runs a command opens
def _warn_unverified() -> None:
    logger.warning("data.verify=false: CIFAR-10 was not compared with the official files")
