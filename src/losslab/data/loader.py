"""Which examples make a batch and what is drawn for them: a function of (seed, epoch, batch).

Examples that do not fit into memory, read ahead by worker processes in the very order of a plan.

The loader: batches that are each a function of (seed, epoch, batch), from memory or from files.
"""

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
from losslab.errors import LabError


@dataclass(frozen=True)
class BatchPlan:
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
        return torch.randperm(self.size, generator=random_keys.generator(self.seed, random_keys.ORDER, epoch))

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
        random = random_keys.generator(self.seed, random_keys.AUGMENTATION, epoch, number)
        draws = self.augment.draw(count, self.shape[0], self.shape[1], random)[self.rank :: self.world]
        if self.augment.alternate:
            draws[:, 2] = (self._sides[rows] + epoch) % 2
        return draws

    @cached_property
    def _sides(self) -> Tensor:
        """Which way round each example is in the even epochs, where the augmentation mirrors by turns."""
        return torch.randint(2, (self.size,), generator=random_keys.generator(self.seed, random_keys.SIDES))


class Prefetcher:
    """Augmented examples, batch by batch, by a DataLoader whose items are whole batches.

    A worker is asked for "batch n of epoch e" and works it out from the plan. So it needs no state and no seed, lives
    on over epochs, and gives what the process itself would give.

    Args:
        source: where the examples are read from.
        plan: which batches there are.
        workers: processes that read ahead; 0 to read in this one.
        pin: put batches into memory that a GPU copies from without waiting.
    """

    def __init__(self, source: Source, plan: BatchPlan, workers: int, *, pin: bool = False) -> None:
        self._wanted: list[tuple[int, int]] = []
        self._plan = plan
        with warnings.catch_warnings():
            # Torch has its own opinion on how many workers are too many; here the user has the word.
            warnings.filterwarnings("ignore", message=".*suggested max number of worker.*")
            self._loader: DataLoader[Any] = DataLoader(
                _Batches(source, plan),
                batch_size=None,
                sampler=_Wanted(self._wanted),
                num_workers=workers,
                persistent_workers=workers > 0,
                pin_memory=pin,
                worker_init_fn=partial(_begin, os.getpid()),
                generator=torch.Generator(),  # or it would take a number from the generator of the run
            )

    def parts(self, epoch: int, first: int) -> Iterator[Examples]:
        """The batches of an epoch from number `first` on, augmented, on the CPU.

        Raises:
            LabError: an example cannot be read, or a worker died.
        """
        # In place: the sampler was handed this list. Epoch and number are all that workers are ever told.
        self._wanted[:] = [(epoch, number) for number in range(first, len(self._plan))]
        try:
            for part in self._loader:
                if isinstance(part, LabError):
                    raise part
                yield part
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise LabError(
                f"a process that reads the data ahead has died ({' '.join(str(error).split())[:120]}): memory may be "
                f"short, in /dev/shm too; fewer data.workers take less, and data.workers=0 reads without them"
            ) from error

    def close(self) -> None:
        """End the workers; the next epoch starts new ones."""
        # As Lightning does it with loaders that it knows: torch offers no public way.
        iterator, self._loader._iterator = self._loader._iterator, None  # noqa: SLF001
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]  # noqa: SLF001


class _Batches(Dataset[Any]):
    """Item (epoch, number) is a whole batch, or the LabError that there was instead of it.

    An exception would come out of a worker as a traceback of many lines.
    """

    def __init__(self, source: Source, plan: BatchPlan) -> None:
        self._source, self._plan = source, plan
        self._order: tuple[int, Tensor] | None = None

    def __getitem__(self, wanted: tuple[int, int]) -> Examples | LabError:
        epoch, number = wanted
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self._plan.order(epoch)
        rows = self._plan.rows(self._order[1], number)
        try:
            part = self._source.take(rows)
        except LabError as error:
            return error
        return augmented(part, self._plan, self._plan.draws(epoch, number, rows))


class _Wanted:
    """A sampler over a list that changes between epochs."""

    def __init__(self, wanted: list[tuple[int, int]]) -> None:
        self._wanted = wanted

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(self._wanted))

    def __len__(self) -> int:
        return len(self._wanted)


def augmented(part: Examples, plan: BatchPlan, draws: Tensor | None) -> Examples:
    """A batch with its images augmented by these draws."""
    return part if plan.augment is None or draws is None else part._replace(inputs=plan.augment(part.inputs, draws))


def _begin(parent: int, _: int) -> None:
    """Prepare a worker: signals are the parent's to handle, and nothing is read for a parent that is gone."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()),
    ):  # which are sent to all processes of a job
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


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
        self.plan = BatchPlan(examples.size, examples.shape, batch_size, seed, shuffle, augment, *place)
        pin = self.device.type == "cuda"
        self._stream = None if isinstance(examples, Examples) else Prefetcher(examples, self.plan, workers, pin=pin)
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
