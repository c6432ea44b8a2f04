"""The base of every data module: splits in memory, batches of a global size, one set of conventions.

The base of the real data sets that scikit-learn brings along, so that they need no download.
"""

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
from losslab.data.corruption import manifest as made
from losslab.data.corruption import subset
from losslab.data.corruption.base import Corruption
from losslab.data.loader import Loader
from losslab.data.machine import format_bytes
from losslab.data.metadata import DataMetadata
from losslab.data.transforms import Augment, Mix, Normalise, encode_classes
from losslab.errors import LabError
from losslab.targets import Kind, Task

logger = logging.getLogger(__name__)


class ExperimentDataModule(LightningDataModule, ABC):
    """A data set held in memory, or read from files as it goes. A subclass gives its `facts` and writes `load`.

    Args:
        batch_size: examples in a training batch over all processes; None for all of them at once.
        eval_batch_size: examples in a validation or test batch; None for all at once. Results do not depend on it.
        seed: of order and augmentation, normally that of the run.
    """

    facts: DataSpec
    augment: Augment | None = None
    transform: Callable[[Tensor], Tensor] | None = None
    mix: Mix | None = None
    corruptions: Sequence[Corruption] = ()
    manifest: made.Manifest | None = None
    """What the faults did, once the data were read."""
    may_download: bool = True
    """Whether data that are not there may be downloaded."""
    expected_manifest: made.Manifest | None = None
    """What they must have done, where a run is built again."""
    workers = 0
    """Processes that read ahead, for splits that are not in memory."""
    val_split = "val"
    """The split that validation looks at: "train" to measure on what was learnt from."""
    training_metadata: DataMetadata | None = None
    """What a run that is over knew of its training data: it holds, whatever other data the run is now tried on."""

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
        """Read the data once, and move them to the GPU that will use them."""
        if not self.splits:
            try:
                self.splits = self._corrupted(self.load())
            except (MemoryError, RuntimeError, OverflowError) as error:  # torch's words for numbers beyond all bounds
                raise LabError(f"data cannot be had with these settings: {' '.join(str(error).split())}") from error
            if self.training_metadata is not None and self.training_metadata.normalise is not None:
                self.transform = self.training_metadata.normalise
        device = self._device()
        held = [source for source in self.splits.values() if isinstance(source, Examples)]
        if device.type == "cuda" and any(examples.device != device for examples in held):
            needed, free = sum(examples.nbytes for examples in held), torch.cuda.mem_get_info(device)[0]
            if needed > free / 2:
                logger.info(
                    "the data stay in the host's memory: %s, and %s free on %s",
                    format_bytes(needed), format_bytes(free), device,
                )  # fmt: skip
                return
            self.splits = {name: _moved(source, device) for name, source in self.splits.items()}

    def corrupt(self, faults: Sequence[Corruption]) -> None:
        """Make something wrong with the training split, in this order, when the data are read.

        Raises:
            LabError: these data cannot have one of the faults.
        """
        for fault in faults:
            fault.check(self.facts)
        self.corruptions = faults

    def _corrupted(self, splits: Mapping[str, Source]) -> Mapping[str, Source]:
        if self.corruptions:
            train, self.manifest = made.apply(subset.as_training_split(splits["train"]), self.corruptions, self.facts)
            splits = {**splits, "train": train}
        if self.expected_manifest is not None:
            made.verify(self.manifest, self.expected_manifest)
        return splits

    def enable_mixing(self, mix: Mix) -> None:
        """Mix training batches from now on, which makes class probabilities of the targets of every split.

        Raises:
            LabError: these are no images in classes.
        """
        if self.facts.task is not Task.MULTICLASS or len(self.facts.input_shape) != 3:
            raise LabError("mix= mixes images and their classes: these data have none")
        self.mix, self.facts = mix, replace(self.facts, kind=Kind.PROBABILITIES)

    @property
    def class_counts(self) -> Tensor | None:
        """How often each class is the target of a training example, int64 (C,) on the CPU; None for values.

        Probabilities count as so many examples, rounded; of independent labels it is how often each is 1, (K,). An
        index outside 0..C-1 is of no class.

        Raises:
            LabError: the data were not read yet.
        """
        if self.facts.kind is Kind.VALUES:
            return None
        if self.training_metadata is not None:
            return self.training_metadata.class_counts
        if not self.splits:
            raise LabError("class counts are known once the data were read: call setup() first")
        target = self.splits["train"].target.cpu()
        if target.is_floating_point():
            return target.double().sum(0).round().long()
        known = target[(target >= 0) & (target < self.facts.targets)]
        return torch.bincount(known, minlength=self.facts.targets)

    @property
    def metadata(self) -> DataMetadata:
        """What must be known of these data, which were read, to use a network without them."""
        transform = self.transform
        normalise = transform if isinstance(transform, Normalise) else None
        foreign = None if transform is normalise else getattr(transform, "__name__", type(transform).__name__)
        return DataMetadata(self.facts, normalise, self.class_counts, foreign)

    def teardown(self, stage: str | None = None) -> None:  # noqa: ARG002 -- Lightning's signature
        """End the processes that read ahead."""
        for loader in self._loaders:
            loader.close()
        self._loaders.clear()

    def train_dataloader(self) -> Loader:
        """Shuffled and augmented, but for `overfit_batches`, where the same plain batches come every epoch."""
        same = self.trainer is not None and bool(self.trainer.overfit_batches)  # type: ignore[attr-defined]
        augment, mix = (None, None) if same else (self.augment, self.mix)
        return self._loader("train", self.batch_size, shuffle=not same, augment=augment, mix=mix)

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
        source, classes = self.splits[split], self.facts.targets
        spell = None if self.mix is None else partial(encode_classes, classes)
        loader = Loader(
            source,
            batch_size or max(1, source.size),
            seed=self.seed,
            shuffle=shuffle,
            augment=augment,
            transform=self.transform,
            mix=spell if mix is None else partial(mix, classes, self.seed),
            rank=self.trainer.global_rank if self.trainer is not None else 0,
            world=self.trainer.world_size if self.trainer is not None else 1,
            workers=self.workers,
            device=self._device() if self.trainer is not None else None,
        )
        self._loaders.append(loader)
        return loader

    def _device(self) -> torch.device:
        """Where batches are wanted: the GPU that will use them. Any other device gets them from Lightning."""
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        return device if device.type == "cuda" else torch.device("cpu")


def _moved(source: Source, device: torch.device) -> Source:
    return source.to(device) if isinstance(source, Examples) else source


def split_rows(count: int, sizes: tuple[int, ...], seed: int) -> list[Tensor]:
    """Split the rows 0..count-1 at random into parts of these sizes, each part in ascending order.

    Raises:
        LabError: the parts are more than there is, or one would be empty.
    """
    if sum(sizes) > count or any(size < 1 for size in sizes):
        raise LabError(f"cannot split {count:,} examples into parts of {', '.join(f'{size:,}' for size in sizes)}")
    rows = torch.randperm(count, generator=random_keys.generator(seed, random_keys.SPLIT))
    return [part.sort().values for part in rows[: sum(sizes)].split(sizes)]


def standardise_columns(values: Tensor, train: Tensor) -> Tensor:
    """(values - mean) / std by the column statistics of the training rows alone; constant columns become 0."""
    mean, std = train.mean(0), train.std(0, correction=0)
    return (values - mean) / torch.where(std > 0, std, 1.0)


class SplitDataModule(ExperimentDataModule):
    """A data set without official splits: 70 % become training, 15 % validation and 15 % test examples.

    Args:
        batch_size: examples a training batch; None for all.
        eval_batch_size: examples a validation or test batch; None for all.
        split_seed: of the split.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        batch_size: int | None = 32,
        eval_batch_size: int | None = None,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        self.split_seed = split_seed

    @abstractmethod
    def read(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the whole data set."""

    def standardise(self, inputs: Tensor, target: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Inputs and targets, scaled with what the training rows alone say."""
        return inputs, target

    def load(self) -> dict[str, Examples]:
        """Read, split, and standardise with the training split's statistics."""
        inputs, target = self.read()
        part = round(0.15 * len(inputs))
        train, val, test = split_rows(len(inputs), (len(inputs) - 2 * part, part, part), self.split_seed)
        examples = Examples.of(*self.standardise(inputs, target, train))
        return {"train": examples.take(train), "val": examples.take(val), "test": examples.take(test)}
