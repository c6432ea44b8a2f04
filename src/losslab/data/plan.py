"""Which examples make a batch and what is drawn for them: a function of (seed, epoch, batch)."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from losslab.data import keys
from losslab.data.augment import Augment


@dataclass(frozen=True)
class Plan:
    """The batches of any epoch, as one process of `world` sees them. It holds no state, so it can be asked anywhere.

    Args:
        size: examples in the data set.
        shape: of one example's inputs; of images (height, width, channels).
        batch_size: examples in a batch over all processes.
        seed: of order and augmentation.
        shuffle: whether each epoch has its own order.
        augment: what is drawn for each image; None for nothing.
        rank: which process this is.
        world: how many there are.
    """

    size: int
    shape: torch.Size
    batch_size: int
    seed: int = 0
    shuffle: bool = False
    augment: Augment | None = None
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        """The batches of an epoch."""
        return math.ceil(self.size / self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """The rows of the data set in the order of this epoch → int64 (size,)."""
        if not self.shuffle:
            return torch.arange(self.size)
        return torch.randperm(self.size, generator=keys.generator(self.seed, keys.ORDER, epoch))

    def rows(self, order: Tensor, number: int) -> Tensor:
        """This process's share of batch `number`, out of the order of its epoch → int64 (N,)."""
        return order[number * self.batch_size : (number + 1) * self.batch_size][self.rank :: self.world]

    def draws(self, epoch: int, number: int, rows: Tensor) -> Tensor | None:
        """What augmentation does to this process's share of a batch, which is `rows` → int64 (N, 5).

        Drawn for the whole batch and then shared out: the draws do not depend on the number of processes.
        """
        if self.augment is None:
            return None
        count = min(self.batch_size, self.size - number * self.batch_size)
        random = keys.generator(self.seed, keys.AUGMENTATION, epoch, number)
        draws = self.augment.draw(count, self.shape[0], self.shape[1], random)[self.rank :: self.world]
        if self.augment.alternate:
            draws[:, 2] = (self._sides[rows] + epoch) % 2
        return draws

    @cached_property
    def _sides(self) -> Tensor:
        """Which way round each example is in the even epochs, where the augmentation mirrors by turns."""
        return torch.randint(2, (self.size,), generator=keys.generator(self.seed, keys.SIDES))
