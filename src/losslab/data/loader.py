"""The loader: batches of examples that lie in memory, each a function of (seed, epoch, batch)."""

import math
from collections.abc import Callable, Iterator
from typing import Self

import torch
from torch import Tensor

from losslab.data import keys
from losslab.data.augment import Augment
from losslab.data.batch import Batch, Examples


class Loader:
    """A sized iterable of batches, in place of a DataLoader for data that fit into memory.

    `batch_size` is global: with several processes each takes its share of every batch, and all take equally many
    steps. No example is dropped, padded or repeated. Order and augmentation are functions of (seed, epoch, batch),
    so an interrupted epoch goes on exactly where it stopped.

    Lightning tells a loader its epoch through `loader.sampler.set_epoch`; the loader is its own sampler.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        augment: Augment | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.augment = augment
        self.transform = transform
        self.rank, self.world = rank, world
        self.epoch = 0
        self._next = 0
        self._start = 0

    batch_sampler = None
    """Lightning looks at it before it believes that a loader's `sampler` is all there is."""

    @property
    def sampler(self) -> Self:
        """The loader itself, which is where Lightning finds `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each training epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.examples.inputs) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator on purpose: Lightning calls iter() before it sets the first epoch, so nothing may be drawn yet.
        order = self._order()
        first, self._start = self._start, 0
        for number in range(first, len(self)):
            # Counted before the batch is handed out: whoever saves a state holds this batch already.
            self._next = (number + 1) % len(self)
            yield self._batch(order, number)

    def state_dict(self) -> dict[str, int]:
        """Where the epoch stands: the number of the next batch."""
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next epoch, and only that one, at the batch that `state_dict` named."""
        self._next = self._start = state["next"]

    def _order(self) -> Tensor:
        count = len(self.examples.inputs)
        if not self.shuffle:
            return torch.arange(count)
        return torch.randperm(count, generator=keys.generator(self.seed, keys.ORDER, self.epoch))

    def _batch(self, order: Tensor, number: int) -> Batch:
        rows = order[number * self.batch_size : (number + 1) * self.batch_size]
        mine = slice(self.rank, None, self.world)
        inputs, target, truth, index = self.examples.take(rows[mine].to(self.examples.inputs.device))
        if self.augment is not None:
            # Drawn for the whole batch and then shared out: the draws do not depend on the number of processes.
            random = keys.generator(self.seed, keys.AUGMENTATION, self.epoch, number)
            draws = self.augment.draw(len(rows), inputs.shape[1], inputs.shape[2], random)
            inputs = self.augment(inputs, draws[mine])
        if self.transform is not None:
            inputs = self.transform(inputs)
        return Batch(inputs, target, truth, index)


class Normalise:
    """uint8 images (N, H, W, channels) → float (N, channels, H, W) in channels_last memory, (x - mean) / std.

    Args:
        mean: of each channel, in pixel values from 0 to 255.
        std: of each channel, in the same units.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.scale, self.shift = 1 / std.float(), -mean.float() / std.float()

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise a batch."""
        scale, shift = self.scale.to(images.device), self.shift.to(images.device)
        return torch.addcmul(shift, images.float(), scale).permute(0, 3, 1, 2)
