"""The base of the real data sets that scikit-learn brings along, so that they need no download."""

from abc import abstractmethod

from torch import Tensor

from losslab.data.batch import Examples
from losslab.data.module import MemoryDataModule, split_rows


class SplitDataModule(MemoryDataModule):
    """A data set without official splits: 70 % become training, 15 % validation and 15 % test examples.

    Args:
        batch_size: examples a training batch; None for all.
        eval_batch_size: examples a validation or test batch; None for all.
        split_seed: of the split.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        batch_size: int | None = 32,
        eval_batch_size: int | None = None,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        self.split_seed = split_seed

    @abstractmethod
    def read(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the whole data set."""

    def standardise(self, inputs: Tensor, target: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Inputs and targets, scaled with what the training rows alone say."""
        return inputs, target

    def load(self) -> dict[str, Examples]:
        """Read, split, and standardise with the training split's statistics."""
        inputs, target = self.read()
        part = round(0.15 * len(inputs))
        train, val, test = split_rows(len(inputs), (len(inputs) - 2 * part, part, part), self.split_seed)
        examples = Examples.of(*self.standardise(inputs, target, train))
        return {"train": examples.take(train), "val": examples.take(val), "test": examples.take(test)}
