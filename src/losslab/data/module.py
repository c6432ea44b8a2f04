"""`ExperimentDataModule`, the base class of all data sets, and the seeded random split."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from lightning import LightningDataModule
from torch import Tensor

from losslab.data import random_keys
from losslab.data.batch import DataSpec, Examples, Source
from losslab.data.corruption import manifest as manifests
from losslab.data.corruption.base import Corruption, as_training_split
from losslab.data.loader import Loader
from losslab.data.machine import format_bytes
from losslab.data.metadata import DataMetadata
from losslab.data.transforms import Augment, Mix, Normalise, encode_classes
from losslab.errors import LabError, message_of
from losslab.targets import Kind, Task

logger = logging.getLogger(__name__)


class ExperimentDataModule(LightningDataModule, ABC):
    """A data set with train, val and test splits. A subclass declares its `spec` and implements `load`.

    Args:
        batch_size: global training batch size; None for full batches.
        eval_batch_size: batch size of validation and test; None for full batches. Results do not depend on it.
        seed: seed of order and augmentation, normally that of the run.
    """

    spec: DataSpec
    augment: Augment | None = None
    transform: Callable[[Tensor], Tensor] | None = None
    mix: Mix | None = None
    corruptions: Sequence[Corruption] = ()
    manifest: manifests.Manifest | None = None
    """What the corruptions changed; set by `setup`."""
    expected_manifest: manifests.Manifest | None = None
    """The manifest of the run that is rebuilt or resumed; `setup` raises if `manifest` differs from it."""
    may_download: bool = True
    workers = 0
    """Number of worker processes for splits that are not in memory."""
    val_split = "val"
    """The split of `val_dataloader`; "train" to evaluate on the training data."""
    training_metadata: DataMetadata | None = None
    """Metadata of a finished run's training data; takes precedence when the run is evaluated on other data."""

    def __init__(self, batch_size: int | None, eval_batch_size: int | None, seed: int) -> None:
        super().__init__()
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size is not None and (not isinstance(size, int) or size < 1):
                raise LabError(f"data.{name} must be 1 or more, or null for all examples at once: got {size}")
        if not isinstance(seed, int):
            raise LabError(f"data.seed must be a whole number, got {seed!r}")
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.splits: Mapping[str, Source] = {}
        self._loaders: list[Loader] = []

    @abstractmethod
    def load(self) -> Mapping[str, Source]:
        """Read the data → the splits "train", "val" and "test". May set `transform` from the training split."""

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 -- Lightning's signature
        """Read the data once, and move them to the GPU that trains on them if they fit."""
        if not self.splits:
            try:
                self.splits = self._corrupted(self.load())
            except (MemoryError, RuntimeError, OverflowError) as error:  # torch raises these for absurd sizes
                raise LabError(f"the data cannot be created with these settings: {message_of(error)}") from error
            if self.training_metadata is not None and self.training_metadata.normalise is not None:
                self.transform = self.training_metadata.normalise
        device = self._device()
        in_memory = {name: source for name, source in self.splits.items() if isinstance(source, Examples)}
        if device.type == "cuda" and any(examples.device != device for examples in in_memory.values()):
            needed = sum(examples.nbytes for examples in in_memory.values())
            free = torch.cuda.mem_get_info(device)[0]
            if needed > free / 2:
                sizes = format_bytes(needed), format_bytes(free)
                logger.info("the data stay in the host's memory: %s, and %s free on %s", *sizes, device)
            else:
                self.splits = {**self.splits, **{name: examples.to(device) for name, examples in in_memory.items()}}

    def corrupt(self, corruptions: Sequence[Corruption]) -> None:
        """Corrupt the training split in this order when it is read. Raises LabError if a corruption does not fit."""
        for corruption in corruptions:
            corruption.check(self.spec)
        self.corruptions = corruptions

    def _corrupted(self, splits: Mapping[str, Source]) -> Mapping[str, Source]:
        if self.corruptions:
            clean = as_training_split(splits["train"])
            train, self.manifest = manifests.apply(clean, self.corruptions, self.spec)
            splits = {**splits, "train": train}
        if self.expected_manifest is not None:
            manifests.verify(self.manifest, self.expected_manifest)
        return splits

    def enable_mixing(self, mix: Mix) -> None:
        """Mix training batches; targets become probabilities. Raises LabError unless the data are images in classes."""
        if self.spec.task is not Task.MULTICLASS or len(self.spec.input_shape) != 3:
            raise LabError("mix= mixes images and their classes: these data have none")
        self.mix, self.spec = mix, replace(self.spec, kind=Kind.PROBABILITIES)

    @property
    def class_counts(self) -> Tensor | None:
        """Number of training examples with each class as target, int64 (C,) on the CPU; None for values.

        For probabilities their rounded sums; for labels how often each is 1, (K,). Indices outside 0..C-1 are not
        counted. Raises LabError before `setup`.
        """
        if self.spec.kind is Kind.VALUES:
            return None
        if self.training_metadata is not None:
            return self.training_metadata.class_counts
        if not self.splits:
            raise LabError("class counts are known once the data were read: call setup() first")
        target = self.splits["train"].target.cpu()
        if target.is_floating_point():
            return target.double().sum(0).round().long()
        valid = target[(target >= 0) & (target < self.spec.targets)]
        return torch.bincount(valid, minlength=self.spec.targets)

    @property
    def metadata(self) -> DataMetadata:
        """What a finished run stores about its training data. Requires `setup`."""
        transform = self.transform
        normalise = transform if isinstance(transform, Normalise) else None
        foreign = None if transform is normalise else getattr(transform, "__name__", type(transform).__name__)
        return DataMetadata(self.spec, normalise, self.class_counts, foreign)

    def teardown(self, stage: str | None = None) -> None:  # noqa: ARG002 -- Lightning's signature
        """End the loaders' worker processes."""
        for loader in self._loaders:
            loader.close()
        self._loaders.clear()

    def train_dataloader(self) -> Loader:
        """Shuffled and augmented batches; with `overfit_batches`, the same plain batches in every epoch."""
        overfit = self.trainer is not None and bool(self.trainer.overfit_batches)  # type: ignore[attr-defined]
        augment, mix = (None, None) if overfit else (self.augment, self.mix)
        return self._loader("train", self.batch_size, shuffle=not overfit, augment=augment, mix=mix)

    def val_dataloader(self) -> Loader:
        """Every validation example once, in order."""
        return self._loader(self.val_split, self.eval_batch_size)

    def test_dataloader(self) -> Loader:
        """Every test example once, in order."""
        return self._loader("test", self.eval_batch_size)

    predict_dataloader = test_dataloader

    def _loader(
        self,
        split: str,
        batch_size: int | None,
        *,
        shuffle: bool = False,
        augment: Augment | None = None,
        mix: Mix | None = None,
    ) -> Loader:
        source, classes = self.splits[split], self.spec.targets
        encoding = None if self.mix is None else partial(encode_classes, classes)
        loader = Loader(
            source,
            batch_size or max(1, source.size),
            seed=self.seed,
            shuffle=shuffle,
            augment=augment,
            transform=self.transform,
            mix=encoding if mix is None else partial(mix, classes, self.seed),
            rank=self.trainer.global_rank if self.trainer is not None else 0,
            world_size=self.trainer.world_size if self.trainer is not None else 1,
            workers=self.workers,
            device=self._device() if self.trainer is not None else None,
        )
        self._loaders.append(loader)
        return loader

    def _device(self) -> torch.device:
        """The GPU that the trainer uses, else the CPU: Lightning moves batches to other accelerators."""
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        return device if device.type == "cuda" else torch.device("cpu")


def split_rows(count: int, sizes: tuple[int, ...], seed: int) -> list[Tensor]:
    """Split rows 0..count-1 at random into disjoint sorted parts of these sizes. Raises LabError if they do not fit."""
    if sum(sizes) > count or any(size < 1 for size in sizes):
        raise LabError(f"cannot split {count:,} examples into parts of {', '.join(f'{size:,}' for size in sizes)}")
    rows = torch.randperm(count, generator=random_keys.generator(seed, random_keys.SPLIT))
    return [part.sort().values for part in rows[: sum(sizes)].split(sizes)]
