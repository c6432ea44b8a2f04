"""A real binary classification.

A real regression.

Real images, small enough to come with scikit-learn.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.data.batch import DataSpec
from losslab.data.module import SplitDataModule, standardise_columns
from losslab.data.transforms import Augment, Normalise
from losslab.errors import LabError
from losslab.targets import Kind, Task


class BreastCancer(SplitDataModule):
    """Malignant (0) or benign (1), from 30 features of 569 cell nuclei (Wolberg et al. 1995), standardised."""

    facts = DataSpec(Task.BINARY, Kind.BINARY, input_shape=(30,), targets=1, class_names=("malignant", "benign"))

    def read(self) -> tuple[Tensor, Tensor]:
        """(569, 30) float64 and (569, 1) float32."""
        from sklearn.datasets import load_breast_cancer  # noqa: PLC0415 -- a second to import, and only here

        x, y = load_breast_cancer(return_X_y=True)
        return torch.from_numpy(x), torch.from_numpy(y)[:, None].float()

    def standardise(self, inputs: Tensor, target: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
        """Features, each column by the training rows; labels stay 0 and 1."""
        return standardise_columns(inputs, inputs[train]).float(), target


class Diabetes(SplitDataModule):
    """Disease progression of 442 patients a year on, from 10 features (Efron et al. 2004, "Least angle regression").

    Features and target are standardised: predicting the training mean has a training MSE of 1.
    """

    facts = DataSpec(Task.REGRESSION, Kind.VALUES, input_shape=(10,), targets=1)

    def read(self) -> tuple[Tensor, Tensor]:
        """(442, 10) and (442, 1), float64."""
        from sklearn.datasets import load_diabetes  # noqa: PLC0415 -- a second to import, and only here

        x, y = load_diabetes(return_X_y=True, scaled=False)
        return torch.from_numpy(x), torch.from_numpy(y)[:, None]

    def standardise(self, inputs: Tensor, target: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
        """Features and target, each column by the training rows."""
        return standardise_columns(inputs, inputs[train]).float(), standardise_columns(target, target[train]).float()


class Digits(SplitDataModule):
    """1,797 handwritten digits of 8×8 pixels (Alpaydin & Kaynak 1998), enlarged and grey in three channels.

    They take the place of CIFAR-10 where a network for images is to be tried offline in seconds.

    Args:
        size: side of the image in pixels, 32 as in CIFAR-10.
        crop: pixels of padding for the random crop in training; 0 for none.
        cutout: side of the square that cutout covers; 0 for none. Digits are never mirrored.
        batch_size: examples a training batch; None for all.
        eval_batch_size: examples a validation or test batch; None for all.
        split_seed: of the split into 70 % training, 15 % validation and 15 % test.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        size: int = 32,
        crop: int = 0,
        cutout: int = 0,
        batch_size: int | None = 32,
        eval_batch_size: int | None = 500,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, split_seed, seed)
        if size < 1:
            raise LabError(f"data.size is a number of pixels, 1 or more: got {size}")
        self.augment = Augment(crop, cutout=cutout) if crop or cutout else None
        self.size = size
        names = tuple(str(digit) for digit in range(10))
        self.facts = DataSpec(Task.MULTICLASS, Kind.INDEX, (3, size, size), targets=10, class_names=names)

    def read(self) -> tuple[Tensor, Tensor]:
        """uint8 (1797, size, size, 3) and int64 (1797,)."""
        from sklearn.datasets import load_digits  # noqa: PLC0415 -- a second to import, and only here

        x, y = load_digits(return_X_y=True)
        small = torch.from_numpy(x).float().view(-1, 1, 8, 8) * (255 / 16)
        images = F.interpolate(small, size=(self.size, self.size), mode="bilinear", antialias=True)
        return images.round().byte().permute(0, 2, 3, 1).repeat(1, 1, 1, 3), torch.from_numpy(y)

    def standardise(self, inputs: Tensor, target: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
        """Images stay bytes in memory; batches of them are normalised with the training split's mean and deviation."""
        self.transform = Normalise.from_images(inputs[train])
        return inputs, target
