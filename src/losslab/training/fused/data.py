"""The data of several members: batches with a leading member dimension, read together."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from lightning import LightningDataModule
from torch import Tensor

from losslab.data.batch import Batch, Examples
from losslab.data.loader import BatchPlan, Loader
from losslab.data.module import ExperimentDataModule
from losslab.training.fused.stack import NotFusableError


class FusedLoader:
    """Yields the batches of all members together, or one batch for all members if theirs are the same.

    Its batches are `Batch`es with a leading dimension (M, N, ...), or ordinary ones if there is a single loader. Order
    and augmentation of a member are those of its own loader.

    Args:
        loaders: the distinct loaders of the members. All of them have the same number and sizes of batches.
        loader_of: for each member, the index of its loader.
    """

    batch_sampler = None
    """None, so that Lightning uses `sampler`."""

    def __init__(self, loaders: Sequence[Loader], loader_of: Sequence[int]) -> None:
        self.loaders = loaders
        self.loader_of = torch.tensor(loader_of, device=loaders[0].device)
        first = loaders[0]
        self.batch_size = first.batch_size
        if any(loader.plan.size != first.plan.size for loader in loaders):
            raise NotFusableError("their training splits differ in size")
        if not all(isinstance(loader.examples, Examples) for loader in loaders):
            raise NotFusableError("their examples are not in memory")
        self._same_source = all(
            loader.examples is first.examples and loader.transform is first.transform for loader in loaders
        )

    @property
    def sampler(self) -> Self:
        """The loader itself, on which Lightning calls `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each training epoch."""
        for loader in self.loaders:
            loader.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.loaders[0])

    def __iter__(self) -> Iterator[Batch]:
        if len(self.loaders) == 1:
            yield from self.loaders[0]
        elif self._same_source:
            yield from self._read_together()
        else:
            for batches in zip(*self.loaders, strict=True):
                yield Batch(*(torch.stack(parts)[self.loader_of] for parts in zip(*batches, strict=True)))

    def _read_together(self) -> Iterator[Batch]:
        """Read the batches of all loaders with one call for each batch number."""
        first, examples = self.loaders[0], self.loaders[0].examples
        plans, numbers = [loader.plan for loader in self.loaders], first.remaining_batches()
        orders = torch.stack([plan.order(first.epoch) for plan in plans])
        for number in numbers:
            rows = torch.stack([plan.shard_rows(order, number) for plan, order in zip(plans, orders, strict=True)])
            drawn = [plan.draws(first.epoch, number, own) for plan, own in zip(plans, rows, strict=True)]
            draws = None if drawn[0] is None else torch.cat([each for each in drawn if each is not None])
            device = examples.device
            draws = None if draws is None else draws.to(device)
            batch = first.to_batch(plans[0].read(examples, rows.flatten().to(device), draws), number)
            yield Batch(*(self._of_members(values, len(plans)) for values in batch))

    def _of_members(self, values: Tensor, count: int) -> Tensor:
        """Return values (M, N, ...) of all members from those (loaders · N, ...) of all loaders."""
        own: Tensor = values.unflatten(0, (count, -1)).index_select(0, self.loader_of)
        return own

    def state_dict(self) -> dict[str, int]:
        """Return the epoch of the newest batch, and the number of the next batch."""
        return self.loaders[0].state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start at the saved batch number if the next epoch is the saved epoch."""
        for loader in self.loaders:
            loader.load_state_dict(state)


class FusedData(LightningDataModule):
    """The data modules of the members.

    Args:
        modules: the distinct data modules, set up.
        module_of: for each member, the index of its data module.
        seeds: for each member, the seed of order and augmentation.
    """

    def __init__(self, modules: Sequence[ExperimentDataModule], module_of: Sequence[int], seeds: Sequence[int]) -> None:
        super().__init__()
        used = sorted({*module_of})  # other parts of the group may use other ones
        self.modules, self.seeds = [modules[index] for index in used], seeds
        self.module_of = [used.index(index) for index in module_of]

    def setup(self, stage: str) -> None:
        for module in self.modules:
            module.trainer = self.trainer
            module.setup(stage)  # moves the data to the GPU, if there is one

    def train_dataloader(self) -> FusedLoader:
        pairs = [*zip(self.module_of, self.seeds, strict=True)]
        if all(self._reads_whole_split(module) for module in self.modules):
            pairs = [(module, self.seeds[0]) for module in self.module_of]  # the order has no effect on a full batch
        distinct = [*dict.fromkeys(pairs)]
        loaders = []
        for module, seed in distinct:
            self.modules[module].seed = seed
            loaders.append(self.modules[module].train_dataloader())
        return FusedLoader(loaders, [distinct.index(pair) for pair in pairs])

    def val_dataloader(self) -> FusedLoader:
        return FusedLoader([module.val_dataloader() for module in self.modules], self.module_of)

    def test_dataloader(self) -> FusedLoader:
        return FusedLoader([module.test_dataloader() for module in self.modules], self.module_of)

    def own_order(self, member: int, epoch: int, size: int) -> Tensor | None:
        """Return the rows of a full batch in the order in which the member alone reads them; None for other batches."""
        if not all(self._reads_whole_split(module) for module in self.modules):
            return None
        orders = [
            BatchPlan(size, torch.Size(), size, seed, shuffle=True).order(epoch)
            for seed in (self.seeds[0], self.seeds[member])
        ]
        return orders[0].argsort()[orders[1]]

    @staticmethod
    def _reads_whole_split(module: ExperimentDataModule) -> bool:
        size: Any = module.splits["train"].size
        return module.augment is None and (module.batch_size is None or module.batch_size >= size)
