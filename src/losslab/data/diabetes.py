"""A real regression."""

import torch
from torch import Tensor

from losslab.data.batch import Facts
from losslab.data.module import standardised
from losslab.data.split import SplitDataModule
from losslab.targets import Kind, Task


class Diabetes(SplitDataModule):
    """Disease progression of 442 patients a year on, from 10 features (Efron et al. 2004, "Least angle regression").

    Features and target are standardised: predicting the training mean has a training MSE of 1.
    """

    facts = Facts(Task.REGRESSION, Kind.VALUES, input_shape=(10,), targets=1)

    def read(self) -> tuple[Tensor, Tensor]:
        """(442, 10) and (442, 1), float64."""
        from sklearn.datasets import load_diabetes  # noqa: PLC0415 -- a second to import, and only here

        x, y = load_diabetes(return_X_y=True, scaled=False)
        return torch.from_numpy(x), torch.from_numpy(y)[:, None]

    def standardise(self, inputs: Tensor, target: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
        """Features and target, each column by the training rows."""
        return standardised(inputs, inputs[train]).float(), standardised(target, target[train]).float()
