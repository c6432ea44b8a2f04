"""`Loader`: every batch is a function of (seed, epoch, batch number), read from memory or by worker processes."""

import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from losslab.data import random_keys
from losslab.data.batch import Batch, Examples, Source
from losslab.data.transforms import Augment
from losslab.errors import LabError, message_of


@dataclass(frozen=True)
class BatchPlan:
    """A stateless plan: which rows this rank reads for a batch, and how their images are augmented.

    `size` and `shape` describe the source. The other fields are explained in `Loader`.
    """

    size: int
    shape: torch.Size
    batch_size: int
    seed: int = 0
    shuffle: bool = False
    augment: Augment | None = None
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return math.ceil(self.size / self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Return all rows of the source in the order of this epoch, int64 (size,)."""
        if not self.shuffle:
            return torch.arange(self.size)
        return torch.randperm(self.size, generator=random_keys.generator(self.seed, random_keys.ORDER, epoch))

    def shard_rows(self, order: Tensor, number: int) -> Tensor:
        """Return the rows of batch `number` that this rank reads, int64 (N,), given the order of the epoch."""
        rows = order[number * self.batch_size : (number + 1) * self.batch_size]
        return rows if self.world_size == 1 else rows[self.rank :: self.world_size]

    def draws(self, epoch: int, number: int, rows: Tensor) -> Tensor | None:
        """Return augmentation parameters for the rows of a batch that this rank reads, int64 (N, 5).

        They are drawn for the global batch, and do not depend on `world_size`. Return None if there is no augmentation.
        """
        if self.augment is None:
            return None
        count = min(self.batch_size, self.size - number * self.batch_size)
        random = random_keys.generator(self.seed, random_keys.AUGMENTATION, epoch, number)
        draws = self.augment.draw(count, self.shape[0], self.shape[1], random)[self.rank :: self.world_size]
        if self.augment.alternate:
            draws[:, 2] = (self._mirrored_in_even_epochs[rows] + epoch) % 2
        return draws

    @cached_property
    def _mirrored_in_even_epochs(self) -> Tensor:
        """1 for each row that `augment.alternate` mirrors in even epochs, 0 for each other row; int64 (size,)."""
        return torch.randint(2, (self.size,), generator=random_keys.generator(self.seed, random_keys.SIDES))

    def read(self, source: Source, rows: Tensor, draws: Tensor | None) -> Examples:
        """Read these rows, and augment their images with `draws`. Both tensors are on the device of the source."""
        examples = source.take(rows)
        if self.augment is None or draws is None:
            return examples
        return examples._replace(inputs=self.augment(examples.inputs, draws))


class Prefetcher:
    """Reads batches ahead in the worker processes of a torch DataLoader whose items are whole batches.

    A worker receives (epoch, batch number) and computes the batch from the plan. So it serves all epochs, and batches
    do not depend on `workers`. With `workers=0`, the main process reads. With `pin`, batches are in pinned memory.
    """

    def __init__(self, source: Source, plan: BatchPlan, workers: int, *, pin: bool = False) -> None:
        self._positions: list[tuple[int, int]] = []  # (epoch, batch number) of each batch to read
        self._plan = plan
        with warnings.catch_warnings():
            # torch warns about more workers than cores, but the user chooses `workers`.
            warnings.filterwarnings("ignore", message=".*suggested max number of worker.*")
            self._loader: DataLoader[Any] = DataLoader(
                _BatchDataset(source, plan),
                batch_size=None,
                sampler=self._positions,
                num_workers=workers,
                persistent_workers=workers > 0,
                pin_memory=pin,
                worker_init_fn=partial(_init_worker, os.getpid()),
                generator=torch.Generator(),  # otherwise torch draws a seed from the global generator
            )

    def batches(self, epoch: int, first: int) -> Iterator[Examples]:
        """Read the batches of an epoch, from number `first`, on the CPU. Raises LabError if reading fails."""
        # Changed in place: the list is the DataLoader's sampler.
        self._positions[:] = [(epoch, number) for number in range(first, len(self._plan))]
        try:
            for batch in self._loader:
                if isinstance(batch, LabError):
                    raise batch
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise LabError(
                f"a data worker process died ({message_of(error, 120)}), perhaps because memory or /dev/shm is full: "
                f"lower data.workers, or set data.workers=0 to read without worker processes"
            ) from error

    def close(self) -> None:
        """Stop the workers. The next epoch starts new workers."""
        # torch has no public method for this. Lightning does the same with its loaders.
        iterator, self._loader._iterator = self._loader._iterator, None  # noqa: SLF001
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]  # noqa: SLF001


class _BatchDataset(Dataset[Any]):
    """Maps (epoch, batch number) to a whole batch, or to the LabError that was raised when reading it.

    The error is returned, because torch would add the worker's traceback to the message of a raised exception.
    """

    def __init__(self, source: Source, plan: BatchPlan) -> None:
        self._source, self._plan = source, plan
        self._order: tuple[int, Tensor] | None = None

    def __getitem__(self, position: tuple[int, int]) -> Examples | LabError:
        epoch, number = position
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self._plan.order(epoch)
        rows = self._plan.shard_rows(self._order[1], number)
        try:
            return self._plan.read(self._source, rows, self._plan.draws(epoch, number, rows))
        except LabError as error:
            return error


def _init_worker(parent: int, _: int) -> None:
    """Ignore signals that are sent to all processes of a job, and exit when the parent process ends."""
    hangup = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
    for number in (signal.SIGINT, signal.SIGTERM, *hangup):
        signal.signal(number, signal.SIG_IGN)

    def exit_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


class Loader:
    """A sized iterable of batches, used in place of torch's DataLoader.

    Each rank receives its shard of every batch, so all ranks take the same number of steps. No example is dropped,
    padded or repeated. Order and augmentation are functions of (seed, epoch, batch number), so an interrupted epoch
    resumes exactly where it stopped, and a source on disk gives the same batches as a source in memory.

    Lightning calls `loader.sampler.set_epoch` to set the epoch. The loader is its own sampler.

    Args:
        examples: `Examples` in memory, on any device, or another source.
        batch_size: global batch size, over all ranks.
        seed: seed of order and augmentation.
        shuffle: whether to draw a new order for each epoch.
        augment: augmentation of uint8 images.
        transform: transform of the augmented inputs, applied on the device of the batches.
        mix: function of (batch, epoch, batch number) that mixes the examples of a global batch.
        rank, world_size: rank of this process, and number of ranks.
        workers: number of worker processes for a source that is not in memory.
        device: device of the batches; None for the device of the examples.
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
        world_size: int = 1,
        workers: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.examples, self.batch_size, self.transform, self.mix = examples, batch_size, transform, mix
        self.device = device or examples.device
        self.epoch = 0
        # Mixing needs the global batch. The mixed batch is sharded.
        self._shard = slice(rank, None, world_size) if mix is not None else slice(None)
        ranks = (0, 1) if mix is not None else (rank, world_size)
        self.plan = BatchPlan(examples.size, examples.shape, batch_size, seed, shuffle, augment, *ranks)
        pin = self.device.type == "cuda"
        self._prefetcher = None if isinstance(examples, Examples) else Prefetcher(examples, self.plan, workers, pin=pin)
        self._epoch_and_next = (0, 0)
        self._start: tuple[int, int] | None = None

    batch_sampler = None
    """None, so that Lightning uses `sampler`."""

    @property
    def sampler(self) -> Self:
        """The loader itself, on which Lightning calls `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each training epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning calls iter() before it sets the first epoch, so nothing may be drawn at that point.
        numbers = self.remaining_batches()
        first = numbers.start
        parts = self._in_memory(first) if self._prefetcher is None else self._prefetcher.batches(self.epoch, first)
        for number, examples in zip(numbers, parts, strict=True):
            yield self.to_batch(examples, number)

    def remaining_batches(self) -> range:
        """Return the numbers of the batches of this epoch: all, or for a resumed epoch those from the saved number."""
        start, self._start = self._start, None
        # With limit_train_batches, a saved epoch can be over before its last batch. The next epoch starts at batch 0.
        return range(start[1] if start is not None and start[0] == self.epoch else 0, len(self))

    def to_batch(self, examples: Examples, number: int) -> Batch:
        """Return the batch with this number of the epoch, given its augmented examples, and count it as used.

        It is counted before it is yielded, so that a checkpoint saved during this step counts this batch as used, and
        not the batches that workers have read ahead.
        """
        self._epoch_and_next = (self.epoch, (number + 1) % len(self))
        return self._to_batch(examples, self.epoch, number)

    def peek(self) -> Batch:
        """Read the first batch of epoch 0 in this process, without changing the state of the loader."""
        rows, device = self.plan.shard_rows(self.plan.order(0), 0), self.examples.device
        draws = self.plan.draws(0, 0, rows)
        examples = self.plan.read(self.examples, rows.to(device), None if draws is None else draws.to(device))
        return self._to_batch(examples, 0, 0)

    def _to_batch(self, examples: Examples, epoch: int, number: int) -> Batch:
        """Move the examples to the device, transform and mix them."""
        moved = examples if examples.device == self.device else examples.to(self.device)
        batch = Batch(*moved) if self.transform is None else Batch(self.transform(moved.inputs), *moved[1:])
        return batch if self.mix is None else Batch(*(each[self._shard] for each in self.mix(batch, epoch, number)))

    def state_dict(self) -> dict[str, int]:
        """Return the epoch of the newest batch, and the number of the next batch."""
        return {"epoch": self._epoch_and_next[0], "next": self._epoch_and_next[1]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start at the saved batch number if the next epoch is the saved epoch."""
        self._epoch_and_next = self._start = state["epoch"], state["next"]

    def close(self) -> None:
        """Stop the worker processes. Another epoch starts new processes."""
        if self._prefetcher is not None:
            self._prefetcher.close()

    def _in_memory(self, first: int) -> Iterator[Examples]:
        """Yield the augmented batches of this epoch, from number `first`.

        Order and augmentation of the whole epoch are drawn on the CPU and copied to the device once, because a copy for
        each batch would synchronise with the GPU.
        """
        device, numbers = self.examples.device, range(first, len(self))
        order = self.plan.order(self.epoch)
        per_batch: list[Tensor | None] = [None] * len(numbers)
        if self.plan.augment is not None:
            rows = [self.plan.shard_rows(order, number) for number in numbers]
            per_batch = [self.plan.draws(self.epoch, *each) for each in zip(numbers, rows, strict=True)]
        drawn = [draws for draws in per_batch if draws is not None]
        on_device = torch.cat(drawn).to(device).split([len(draws) for draws in drawn]) if drawn else per_batch
        order = order.to(device)
        for number, draws in zip(numbers, on_device, strict=True):
            yield self.plan.read(self.examples, self.plan.shard_rows(order, number), draws)
