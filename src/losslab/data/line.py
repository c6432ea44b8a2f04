"""Three points on a line: the smallest regression there is."""

import torch

from losslab.data.batch import Examples, Facts
from losslab.data.module import MemoryDataModule
from losslab.targets import Kind, Task


class Line(MemoryDataModule):
    """x = [1, 2, 3], y = [2, 4, 6]: y = 2x, without noise.

    The three points are train, validation and test at once: this data set shows how a loss is minimised and says
    nothing about generalisation.
    """

    facts = Facts(Task.REGRESSION, Kind.VALUES, input_shape=(1,), targets=1)

    def __init__(self, batch_size: int | None = None, eval_batch_size: int | None = None, seed: int = 0) -> None:
        super().__init__(batch_size, eval_batch_size, seed)

    def load(self) -> dict[str, Examples]:
        """The same three examples in every split."""
        x = torch.tensor([[1.0], [2.0], [3.0]])
        points = Examples.of(x, 2 * x)
        return {"train": points, "val": points, "test": points}
