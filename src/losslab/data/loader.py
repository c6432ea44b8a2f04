"""The loader: every batch is a function of (seed, epoch, batch number), read from memory or by worker processes."""

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
    """Computes the rows and augmentation draws of any batch of any epoch, for one rank. Stateless.

    `size` and `shape` are those of the source; the other fields are arguments of `Loader`.
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
        """Number of batches in an epoch."""
        return math.ceil(self.size / self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Rows of the data set in the order of this epoch → int64 (size,)."""
        if not self.shuffle:
            return torch.arange(self.size)
        return torch.randperm(self.size, generator=random_keys.generator(self.seed, random_keys.ORDER, epoch))

    def rows(self, order: Tensor, number: int) -> Tensor:
        """This rank's rows of batch `number`, given the order of the epoch → int64 (N,)."""
        return order[number * self.batch_size : (number + 1) * self.batch_size][self.rank :: self.world_size]

    def draws(self, epoch: int, number: int, rows: Tensor) -> Tensor | None:
        """Augmentation parameters of this rank's rows of a batch → int64 (N, 5); None without augmentation.

        They are drawn for the global batch and then sharded, so they do not depend on world_size.
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
        """0 or 1 for each example, used if `augment.alternate` is set → int64 (size,)."""
        return torch.randint(2, (self.size,), generator=random_keys.generator(self.seed, random_keys.SIDES))

    def augmented(self, examples: Examples, draws: Tensor | None) -> Examples:
        """The examples with their images augmented by these draws."""
        if self.augment is None or draws is None:
            return examples
        return examples._replace(inputs=self.augment(examples.inputs, draws))


class Prefetcher:
    """Reads a source batch by batch through a torch DataLoader whose items are whole batches.

    A worker receives (epoch, batch number) and computes the batch from the plan. It needs no other state, persists
    over epochs, and returns what the main process would return.

    Args:
        source: split to read from.
        plan: plan of the batches.
        workers: number of worker processes; 0 to read in the main process.
        pin: whether to put batches into pinned memory.
    """

    def __init__(self, source: Source, plan: BatchPlan, workers: int, *, pin: bool = False) -> None:
        self._positions: list[tuple[int, int]] = []  # (epoch, batch number) of the batches to read
        self._plan = plan
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*suggested max number of worker.*")  # the user decides
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
        """Augmented batches of an epoch on the CPU, from number `first` on. Raises LabError if one cannot be read."""
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
                f"a data worker process died ({message_of(error, 120)}): memory may be short, in /dev/shm "
                f"too; lower data.workers, or set data.workers=0 to read without worker processes"
            ) from error

    def close(self) -> None:
        """End the workers; the next epoch starts new ones."""
        # torch has no public way; Lightning does the same for its loaders.
        iterator, self._loader._iterator = self._loader._iterator, None  # noqa: SLF001
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]  # noqa: SLF001


class _BatchDataset(Dataset[Any]):
    """Item (epoch, number) is a whole batch, or the LabError that reading it raised.

    Errors are returned because an exception raised in a worker arrives with a traceback of many lines.
    """

    def __init__(self, source: Source, plan: BatchPlan) -> None:
        self._source, self._plan = source, plan
        self._order: tuple[int, Tensor] | None = None

    def __getitem__(self, position: tuple[int, int]) -> Examples | LabError:
        epoch, number = position
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self._plan.order(epoch)
        rows = self._plan.rows(self._order[1], number)
        try:
            examples = self._source.take(rows)
        except LabError as error:
            return error
        return self._plan.augmented(examples, self._plan.draws(epoch, number, rows))


def _init_worker(parent: int, _: int) -> None:
    """Ignore the signals that are sent to all processes of a job, and exit when the parent is gone."""
    hangup = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
    for number in (signal.SIGINT, signal.SIGTERM, *hangup):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


class Loader:
    """A sized iterable of batches, used in place of torch's DataLoader.

    `batch_size` is global: each rank takes its shard of every batch, and all ranks take equally many steps. No example
    is dropped, padded or repeated. Order and augmentation are functions of (seed, epoch, batch number), so an
    interrupted epoch resumes exactly where it stopped, and a source on disk gives the same batches as one in memory.

    Lightning sets the epoch by `loader.sampler.set_epoch`; the loader is its own sampler.

    Args:
        examples: `Examples` in memory, on any device, or another source.
        batch_size: global batch size, over all ranks.
        seed: seed of order and augmentation.
        shuffle: whether each epoch has its own order.
        augment: augmentation of uint8 images.
        transform: transform of the inputs, applied last and on the device of the batches.
        mix: mixes the examples of a global batch, called with (batch, epoch, batch number).
        rank: rank of this process.
        world_size: number of ranks.
        workers: number of worker processes for a source that is not in memory.
        device: device of the batches; None for that of the examples.
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
        self.examples = examples
        self.transform = transform
        self.device = device or examples.device
        self.epoch = 0
        self.mix = mix
        # Mixing needs the global batch, which is sharded afterwards.
        self._shard = slice(rank, None, world_size) if mix is not None else slice(None)
        ranks = (0, 1) if mix is not None else (rank, world_size)
        self.plan = BatchPlan(examples.size, examples.shape, batch_size, seed, shuffle, augment, *ranks)
        pin = self.device.type == "cuda"
        self._prefetcher = None if isinstance(examples, Examples) else Prefetcher(examples, self.plan, workers, pin=pin)
        self._epoch_and_next = (0, 0)
        self._start: tuple[int, int] | None = None

    batch_sampler = None
    """Lightning reads this attribute before it uses `sampler`."""

    @property
    def sampler(self) -> Self:
        """The loader itself, on which Lightning calls `set_epoch`."""
        return self

    @property
    def batch_size(self) -> int:
        """Global batch size."""
        return self.plan.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each training epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning calls iter() before it sets the first epoch, so nothing may be drawn at that point.
        start, self._start = self._start, None
        # The saved epoch may be over although not all its batches were used: limit_train_batches.
        first = start[1] if start is not None and start[0] == self.epoch else 0
        parts = self._in_memory(first) if self._prefetcher is None else self._prefetcher.batches(self.epoch, first)
        for number, examples in enumerate(parts, first):
            # Updated before the yield: a checkpoint saved during this step counts this batch as used. Batches that
            # workers have read ahead do not count.
            self._epoch_and_next = (self.epoch, (number + 1) % len(self))
            yield self._to_batch(examples, self.epoch, number)

    def peek(self) -> Batch:
        """The first batch of epoch 0, read by this process, without any effect on later epochs."""
        rows = self.plan.rows(self.plan.order(0), 0)
        draws = self.plan.draws(0, 0, rows)
        device = self.examples.device
        examples = self.examples.take(rows.to(device))
        return self._to_batch(self.plan.augmented(examples, None if draws is None else draws.to(device)), 0, 0)

    def _to_batch(self, examples: Examples, epoch: int, number: int) -> Batch:
        """Move the examples to the device, transform and mix them."""
        moved = examples if examples.device == self.device else examples.to(self.device)
        batch = Batch(*moved) if self.transform is None else Batch(self.transform(moved.inputs), *moved[1:])
        return batch if self.mix is None else Batch(*(each[self._shard] for each in self.mix(batch, epoch, number)))

    def state_dict(self) -> dict[str, int]:
        """The epoch of the newest batch, and the number of the next batch."""
        return dict(zip(("epoch", "next"), self._epoch_and_next, strict=True))

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start at the saved batch if the next epoch is the saved one."""
        self._epoch_and_next = self._start = state["epoch"], state["next"]

    def close(self) -> None:
        """End the worker processes; another epoch starts new ones."""
        if self._prefetcher is not None:
            self._prefetcher.close()

    def _in_memory(self, first: int) -> Iterator[Examples]:
        """Augmented batches of this epoch, from number `first` on.

        Order and draws of the whole epoch are made on the CPU and copied to the device once: a copy for each batch
        would synchronise with the GPU.
        """
        device, numbers = self.examples.device, range(first, len(self))
        order = self.plan.order(self.epoch)
        per_batch = [self.plan.draws(self.epoch, number, self.plan.rows(order, number)) for number in numbers]
        drawn = [draws for draws in per_batch if draws is not None]
        on_device = torch.cat(drawn).to(device).split([len(draws) for draws in drawn]) if drawn else per_batch
        order = order.to(device)
        for number, draws in zip(numbers, on_device, strict=True):
            yield self.plan.augmented(self.examples.take(self.plan.rows(order, number)), draws)
