"""Examples that do not fit into memory, read ahead by worker processes in the very order of a plan."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from losslab import signals
from losslab.data.batch import Examples, Source
from losslab.data.plan import Plan
from losslab.errors import LabError


class Stream:
    """Augmented examples, batch by batch, by a DataLoader whose items are whole batches.

    A worker is asked for "batch n of epoch e" and works it out from the plan. So it needs no state and no seed, lives
    on over epochs, and gives what the process itself would give.

    Args:
        source: where the examples are read from.
        plan: which batches there are.
        workers: processes that read ahead; 0 to read in this one.
        pin: put batches into memory that a GPU copies from without waiting.
    """

    def __init__(self, source: Source, plan: Plan, workers: int, *, pin: bool = False) -> None:
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
            message = (
                f"a process that reads the data ahead has died ({' '.join(str(error).split())[:120]}): memory may be "
                f"short, in /dev/shm too; fewer data.workers take less, and data.workers=0 reads without them"
            )
            raise LabError(message) from error

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

    def __init__(self, source: Source, plan: Plan) -> None:
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


def augmented(part: Examples, plan: Plan, draws: Tensor | None) -> Examples:
    """A batch with its images augmented by these draws."""
    return part if plan.augment is None or draws is None else part._replace(inputs=plan.augment(part.inputs, draws))


def _begin(parent: int, _: int) -> None:
    """Prepare a worker: signals are the parent's to handle, and nothing is read for a parent that is gone."""
    for number in (signal.SIGINT, *signals.ENDING):  # which are sent to all processes of a job
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
