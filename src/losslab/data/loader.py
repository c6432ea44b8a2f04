"""The loader: batches that are each a function of (seed, epoch, batch), from memory or from files."""

from collections.abc import Callable, Iterator
from typing import Self

import torch
from torch import Tensor

from losslab.data.augment import Augment
from losslab.data.batch import Batch, Examples, Source
from losslab.data.plan import Plan
from losslab.data.stream import Stream, augmented


class Loader:
    """A sized iterable of batches, in place of a DataLoader.

    `batch_size` is global: with several processes each takes its share of every batch, and all take equally many
    steps. No example is dropped, padded or repeated. Order and augmentation are functions of (seed, epoch, batch),
    so an interrupted epoch goes on exactly where it stopped, and examples that are read from files come in the same
    batches as those that lie in memory.

    Lightning tells a loader its epoch through `loader.sampler.set_epoch`; the loader is its own sampler.

    Args:
        examples: in memory (on any device), or a source that reads them.
        batch_size: examples in a batch over all processes.
        seed: of order and augmentation.
        shuffle: whether each epoch has its own order.
        augment: of the images, while they are bytes.
        transform: of the inputs, last and on the device of the batches.
        rank: which process this is.
        world: how many there are.
        mix: what mixes the examples of a whole batch, given the epoch and the number of the batch.
        workers: processes that read ahead from a source which is not in memory.
        device: of the batches; None for that of the examples.
    """

    def __init__(
        self,
        examples: Source,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        augment: Augment | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        mix: Callable[[Batch, int, int], Batch] | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.examples = examples
        self.transform = transform
        self.device = device or examples.device
        self.epoch = 0
        self.mix = mix
        # Who mixes examples needs all of a batch, and takes this process's share of it afterwards.
        self._share = slice(rank, None, world) if mix is not None else slice(None)
        place = (0, 1) if mix is not None else (rank, world)
        self.plan = Plan(examples.size, examples.shape, batch_size, seed, shuffle, augment, *place)
        pin = self.device.type == "cuda"
        self._stream = None if isinstance(examples, Examples) else Stream(examples, self.plan, workers, pin=pin)
        self._epoch_and_next = (0, 0)
        self._start: tuple[int, int] | None = None

    batch_sampler = None
    """Lightning looks at it before it believes that a loader's `sampler` is all there is."""

    @property
    def sampler(self) -> Self:
        """The loader itself, which is where Lightning finds `set_epoch`."""
        return self

    @property
    def batch_size(self) -> int:
        """Examples in a batch over all processes."""
        return self.plan.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each training epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        # A generator on purpose: Lightning calls iter() before it sets the first epoch, so nothing may be drawn yet.
        start, self._start = self._start, None
        # The epoch to go on with may be over, though not all of its batches were asked for: Lightning can limit it.
        first = start[1] if start is not None and start[0] == self.epoch else 0
        parts = self._parts(first) if self._stream is None else self._stream.parts(self.epoch, first)
        for number, part in enumerate(parts, first):
            # Counted before the batch is handed out: whoever saves a state holds this batch already. What workers have
            # read ahead does not count.
            self._epoch_and_next = (self.epoch, (number + 1) % len(self))
            yield self._finished(part, self.epoch, number)

    def peek(self) -> Batch:
        """The first batch of epoch 0, read by this process: no epoch starts elsewhere or draws otherwise for it."""
        rows = self.plan.rows(self.plan.order(0), 0)
        draws = self.plan.draws(0, 0, rows)
        where = self.examples.device
        part = self.examples.take(rows.to(where))
        return self._finished(augmented(part, self.plan, None if draws is None else draws.to(where)), 0, 0)

    def _finished(self, part: Examples, epoch: int, number: int) -> Batch:
        """The batch that is made of these examples, on its device."""
        here = part if part.device == self.device else part.to(self.device)
        batch = Batch(*here) if self.transform is None else Batch(self.transform(here.inputs), *here[1:])
        return batch if self.mix is None else Batch(*(each[self._share] for each in self.mix(batch, epoch, number)))

    def state_dict(self) -> dict[str, int]:
        """The epoch of the newest batch, and the number of the next."""
        return dict(zip(("epoch", "next"), self._epoch_and_next, strict=True))

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the epoch that `state_dict` named, if that is the next, at the batch that it named."""
        self._epoch_and_next = self._start = state["epoch"], state["next"]

    def close(self) -> None:
        """End the processes that read ahead, if there are any; another epoch starts new ones."""
        if self._stream is not None:
            self._stream.close()

    def _parts(self, first: int) -> Iterator[Examples]:
        """The batches of this epoch from number `first` on, out of memory.

        Order and draws of the epoch are made at once and moved to the device once: to copy them with each batch would
        have a GPU wait. They are drawn on the CPU, so they are the same numbers wherever the examples lie.
        """
        device, numbers = self.examples.device, range(first, len(self))
        order = self.plan.order(self.epoch)
        drawn = [self.plan.draws(self.epoch, number, self.plan.rows(order, number)) for number in numbers]
        draws = [draw for draw in drawn if draw is not None]
        shares = torch.cat(draws).to(device).split([len(draw) for draw in draws]) if draws else drawn
        order = order.to(device)
        for number, share in zip(numbers, shares, strict=True):
            yield augmented(self.examples.take(self.plan.rows(order, number)), self.plan, share)
