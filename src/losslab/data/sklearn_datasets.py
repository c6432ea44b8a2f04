"""Data sets of scikit-learn, without a download: breast cancer, diabetes, digits, and drawn examples with labels."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

from losslab.data.batch import DataSpec, Examples
from losslab.data.checks import to_target, to_tensor
from losslab.data.module import ExperimentDataModule, split_rows
from losslab.data.transforms import Augment, Normalise, column_statistics
from losslab.errors import LabError
from losslab.targets import Kind, Task


class SplitDataModule(ExperimentDataModule):
    """Base class of data sets without official splits: 70 % train, 15 % val and 15 % test, drawn with `split_seed`.

    A subclass sets `spec` and implements `read`.
    """

    def __init__(
        self, batch_size: int | None = 32, eval_batch_size: int | None = None, split_seed: int = 0, seed: int = 0
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        self.split_seed = split_seed

    @abstractmethod
    def read(self) -> tuple[Any, Any]:
        """Read inputs and targets of the whole data set: two tensors, arrays, lists or tables of pandas."""

    def standardise(self, inputs: Tensor, target: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
        """Standardise inputs and, for regression, targets by the statistics of the training rows `train`.

        uint8 images (N, height, width, channels) stay as they are: `transform`, which is set, normalises batches.
        """
        if self.spec.task is Task.REGRESSION:
            known = train[~target[train].isnan().any(1)]
            target = _standardise_columns(target, known) if len(known) else target
        if inputs.dtype is torch.uint8 and inputs.ndim == 4:
            self.transform = Normalise.from_images(inputs[train])
            return inputs, target
        return _standardise_columns(inputs, train), target

    def load(self) -> dict[str, Examples]:
        name, result = type(self).__name__, self.read()
        result = result.tensors if isinstance(result, TensorDataset) else result
        if not isinstance(result, tuple | list) or len(result) != 2:
            got = f"{len(result)} values" if isinstance(result, tuple | list) else f"a {type(result).__name__}"
            raise LabError(f"data: {name}.read() must return inputs and targets, got {got}")
        inputs, target = to_tensor(result[0], f"data: the inputs of {name}"), result[1]
        target = to_target(target, self.given_kind, self.spec.targets, f"data: the targets of {name}")
        if len(inputs) != len(target):
            raise LabError(f"data: {name}.read() returns {len(inputs):,} inputs, but {len(target):,} targets")
        if inputs.dtype is torch.uint8 and inputs.ndim == 4 and inputs.shape[1:] == self.spec.input_shape:
            inputs = inputs.permute(0, 2, 3, 1).contiguous()
        part = round(0.15 * len(inputs))
        train, val, test = split_rows(len(inputs), (len(inputs) - 2 * part, part, part), self.split_seed)
        examples = Examples.of(*self.standardise(inputs, target, train))
        return {"train": examples.take(train), "val": examples.take(val), "test": examples.take(test)}


def _standardise_columns(values: Tensor, train: Tensor) -> Tensor:
    """Return (values - mean) / std in float32, where mean and std of each column are those of the rows `train`.

    Constant columns become 0.
    """
    mean, std, _ = column_statistics(values[train])
    return ((values - mean) / std).float()


class BreastCancer(SplitDataModule):
    """569 breast tumours, malignant (0) or benign (1), with 30 standardised features (Wolberg et al. 1995)."""

    spec = DataSpec(Task.BINARY, Kind.BINARY, input_shape=(30,), targets=1, class_names=("malignant", "benign"))

    def read(self) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_breast_cancer  # noqa: PLC0415 -- a second to import

        x, y = load_breast_cancer(return_X_y=True)
        return torch.from_numpy(x), torch.from_numpy(y)[:, None].float()


class Diabetes(SplitDataModule):
    """Disease progression of 442 patients in a year, with 10 features (Efron et al. 2004, "Least angle regression").

    Features and target are standardised, so predicting the training mean has a training MSE of 1.
    """

    spec = DataSpec(Task.REGRESSION, Kind.VALUES, input_shape=(10,), targets=1)

    def read(self) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_diabetes  # noqa: PLC0415 -- a second to import

        x, y = load_diabetes(return_X_y=True, scaled=False)
        return torch.from_numpy(x), torch.from_numpy(y)[:, None]


class Digits(SplitDataModule):
    """1,797 handwritten digits of 8×8 pixels (Alpaydin & Kaynak 1998), enlarged, grey, with three equal channels.

    A substitute for CIFAR-10 to try image networks offline in seconds.

    Args:
        size: side of the enlarged images in pixels; the default is the size of CIFAR-10's images.
        crop, cutout: augmentation of the training images; see `Augment`. Digits are never mirrored.
        batch_size, eval_batch_size, split_seed, seed: see `SplitDataModule`.
        classes: the digits to keep, which become the classes 0, 1, ... in this order; None for all.
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
        classes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, split_seed, seed)
        if size < 1:
            raise LabError(f"data.size must be 1 or more pixels, got {size}")
        kept = list(range(10)) if classes is None else list(classes)
        if len(kept) < 2 or len(set(kept)) < len(kept) or not set(kept) <= set(range(10)):
            raise LabError(f"data.classes must be two or more different digits from 0 to 9, got {kept}")
        self.augment = Augment(crop, cutout=cutout) if crop or cutout else None
        names = tuple(map(str, kept))
        self.spec = DataSpec(Task.MULTICLASS, Kind.INDEX, (3, size, size), targets=len(kept), class_names=names)

    def read(self) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits  # noqa: PLC0415 -- a second to import

        x, y = load_digits(return_X_y=True)
        small = torch.from_numpy(x).float().view(-1, 1, 8, 8) * (255 / 16)
        images = F.interpolate(small, size=self.spec.input_shape[1:], mode="bilinear", antialias=True)
        images = images.round().byte().permute(0, 2, 3, 1).repeat(1, 1, 1, 3)
        is_class = torch.from_numpy(y)[:, None] == torch.tensor([int(name) for name in self.spec.class_names])
        kept = is_class.any(1)
        return images[kept], is_class[kept].int().argmax(1)


class MultilabelSynthetic(SplitDataModule):
    """Examples with several labels each, of which most are 0, drawn by `make_multilabel_classification`.

    Each label has a distribution of words. The words of an example are drawn from those of its labels; the inputs are
    the counts of the words, standardised. Labels are not equally frequent, and some examples have none.

    Args:
        n: number of examples of all splits together.
        features: number of words.
        labels: number K of labels.
        positives: mean number of labels of an example, the mean of a Poisson distribution.
        data_seed: seed of the distributions and the examples, scikit-learn's `random_state`.
        batch_size, eval_batch_size, split_seed, seed: see `SplitDataModule`.
    """

    def __init__(
        self,
        n: int = 4000,
        features: int = 40,
        labels: int = 40,
        positives: int = 2,
        batch_size: int | None = 128,
        eval_batch_size: int | None = None,
        split_seed: int = 0,
        data_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, split_seed, seed)
        if n < 7 or features < 1 or not 0 < positives <= labels:
            raise LabError(
                f"multilabel_synthetic needs n ≥ 7, features ≥ 1 and 0 < positives ≤ labels: got n={n}, "
                f"features={features}, positives={positives}, labels={labels}"
            )
        self.n, self.positives, self.data_seed = n, positives, data_seed
        self.spec = DataSpec(Task.MULTILABEL, Kind.BINARY, input_shape=(features,), targets=labels)

    def read(self) -> tuple[Any, Any]:
        from sklearn.datasets import make_multilabel_classification  # noqa: PLC0415 -- a second to import

        x, y = make_multilabel_classification(
            n_samples=self.n,
            n_features=self.spec.input_shape[0],
            n_classes=self.spec.targets,
            n_labels=self.positives,
            random_state=self.data_seed % 2**32,
        )
        return x, y
