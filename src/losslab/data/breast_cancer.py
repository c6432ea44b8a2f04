"""A real binary classification."""

import torch
from torch import Tensor

from losslab.data.batch import Facts
from losslab.data.module import standardised
from losslab.data.split import SplitDataModule
from losslab.targets import Kind, Task


class BreastCancer(SplitDataModule):
    """Malignant (0) or benign (1), from 30 features of 569 cell nuclei (Wolberg et al. 1995), standardised."""

    facts = Facts(Task.BINARY, Kind.BINARY, input_shape=(30,), targets=1, class_names=("malignant", "benign"))

    def read(self) -> tuple[Tensor, Tensor]:
        """(569, 30) float64 and (569, 1) float32."""
        from sklearn.datasets import load_breast_cancer  # noqa: PLC0415 -- a second to import, and only here

        x, y = load_breast_cancer(return_X_y=True)
        return torch.from_numpy(x), torch.from_numpy(y)[:, None].float()

    def standardise(self, inputs: Tensor, target: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
        """Features, each column by the training rows; labels stay 0 and 1."""
        return standardised(inputs, inputs[train]).float(), target
