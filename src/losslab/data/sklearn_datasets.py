"""The data sets that scikit-learn includes: breast cancer, diabetes and digits. They need no download."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.data.batch import DataSpec, Examples
from losslab.data.module import ExperimentDataModule, split_rows
from losslab.data.transforms import Augment, Normalise
from losslab.errors import LabError
from losslab.targets import Kind, Task


class SplitDataModule(ExperimentDataModule):
    """A data set without official splits: 70 % training, 15 % validation, 15 % test, drawn at random.

    Args:
        batch_size, eval_batch_size, seed: as for `ExperimentDataModule`.
        split_seed: seed of the split.
    """

    def __init__(
        self, batch_size: int | None = 32, eval_batch_size: int | None = None, split_seed: int = 0, seed: int = 0
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        self.split_seed = split_seed

    @abstractmethod
    def read(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the whole data set."""

    def standardise(self, inputs: Tensor, target: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Scale inputs and targets by the statistics of the training rows `train`. The default changes nothing."""
        return inputs, target

    def load(self) -> dict[str, Examples]:
        inputs, target = self.read()
        part = round(0.15 * len(inputs))
        train, val, test = split_rows(len(inputs), (len(inputs) - 2 * part, part, part), self.split_seed)
        examples = Examples.of(*self.standardise(inputs, target, train))
        return {"train": examples.take(train), "val": examples.take(val), "test": examples.take(test)}


def _standardise_columns(values: Tensor, train: Tensor) -> Tensor:
    """float32 (values - mean) / std, with column statistics of the rows `train`; constant columns become 0."""
    mean, std = values[train].mean(0), values[train].std(0, correction=0)
    return ((values - mean) / torch.where(std > 0, std, 1.0)).float()


class BreastCancer(SplitDataModule):
    """Malignant (0) or benign (1), from 30 features of 569 cell nuclei (Wolberg et al. 1995), standardised."""

    spec = DataSpec(Task.BINARY, Kind.BINARY, input_shape=(30,), targets=1, class_names=("malignant", "benign"))

    def read(self) -> tuple[Tensor, Tensor]:
        """(569, 30) float64 and (569, 1) float32."""
        from sklearn.datasets import load_breast_cancer  # noqa: PLC0415 -- a second to import

        x, y = load_breast_cancer(return_X_y=True)
        return torch.from_numpy(x), torch.from_numpy(y)[:, None].float()

    def standardise(self, inputs: Tensor, target: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
        """Standardise the features; labels stay 0 and 1."""
        return _standardise_columns(inputs, train), target


class Diabetes(SplitDataModule):
    """Disease progression of 442 patients after a year, from 10 features (Efron et al. 2004, "Least angle regression").

    Features and target are standardised: predicting the training mean has a training MSE of 1.
    """

    spec = DataSpec(Task.REGRESSION, Kind.VALUES, input_shape=(10,), targets=1)

    def read(self) -> tuple[Tensor, Tensor]:
        """(442, 10) and (442, 1), float64."""
        from sklearn.datasets import load_diabetes  # noqa: PLC0415 -- a second to import

        x, y = load_diabetes(return_X_y=True, scaled=False)
        return torch.from_numpy(x), torch.from_numpy(y)[:, None]

    def standardise(self, inputs: Tensor, target: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
        return _standardise_columns(inputs, train), _standardise_columns(target, train)


class Digits(SplitDataModule):
    """1,797 handwritten digits of 8×8 pixels (Alpaydin & Kaynak 1998), enlarged, grey in three channels.

    A substitute for CIFAR-10 to try image networks offline in seconds.

    Args:
        size: side of the image in pixels, 32 as in CIFAR-10.
        crop: padding of the random crop in training, in pixels; 0 for no crop.
        cutout: side of the cutout square in training; 0 for no cutout. Digits are never mirrored.
        batch_size, eval_batch_size, seed: as for `ExperimentDataModule`.
        split_seed: seed of the split.
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
        self.spec = DataSpec(Task.MULTICLASS, Kind.INDEX, (3, size, size), targets=10, class_names=names)

    def read(self) -> tuple[Tensor, Tensor]:
        """uint8 (1797, size, size, 3) and int64 (1797,)."""
        from sklearn.datasets import load_digits  # noqa: PLC0415 -- a second to import

        x, y = load_digits(return_X_y=True)
        small = torch.from_numpy(x).float().view(-1, 1, 8, 8) * (255 / 16)
        images = F.interpolate(small, size=(self.size, self.size), mode="bilinear", antialias=True)
        return images.round().byte().permute(0, 2, 3, 1).repeat(1, 1, 1, 3), torch.from_numpy(y)

    def standardise(self, inputs: Tensor, target: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
        """Images stay uint8; batches are normalised by the training split's mean and standard deviation."""
        self.transform = Normalise.from_images(inputs[train])
        return inputs, target
