"""`ExperimentDataModule`, the base class of all data sets, and `DataMetadata`, the content of data.json in a run."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from lightning import LightningDataModule
from torch import Tensor

from losslab.data import random_keys
from losslab.data.batch import Batch, DataSpec, Examples, Source
from losslab.data.checks import check_splits, weighted_means
from losslab.data.corruption import manifest as manifests
from losslab.data.corruption.base import Corruption
from losslab.data.loader import Loader
from losslab.data.machine import format_bytes
from losslab.data.transforms import Augment, Mix, Normalise, encode_classes
from losslab.errors import LabError, message_of
from losslab.targets import Kind, Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataMetadata:
    """The `DataSpec` of the data, and statistics of the training split."""

    spec: DataSpec
    normalise: Normalise | None
    """Normalisation of uint8 images; None if the inputs are not normalised."""
    class_counts: Tensor | None
    """Number of training targets of each class (C,); None for regression."""
    foreign_transform: str | None = None
    """Name of an input transform from outside losslab, which cannot be stored."""
    background: tuple[int, int, int] | None = None
    """RGB colour under transparent parts of image files; None to ignore transparency, as runs without it did."""
    contents: Mapping[str, list[float]] | None = None
    """Size and `weighted_means` of each split, by which a resumed run recognises its data; None if not recorded."""

    def as_json(self) -> dict[str, Any]:
        """Return the content of data.json. Floats are written exactly, so `from_json` restores the same numbers."""
        spec, scale, counts = self.spec, self.normalise, self.class_counts
        return {
            "task": spec.task.value,
            "kind": spec.kind.value,
            "input_shape": list(spec.input_shape),
            "targets": spec.targets,
            "class_names": list(spec.class_names),
            "class_counts": None if counts is None else counts.tolist(),
            "normalise": None if scale is None else {"mean": scale.mean.tolist(), "std": scale.std.tolist()},
            "foreign_transform": self.foreign_transform,
            "background": None if self.background is None else list(self.background),
            "contents": self.contents,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], path: Path) -> Self:
        """Restore metadata from `content`, the result of `as_json`. Raises LabError with `path` if it is damaged."""
        try:
            shape, names = tuple(content["input_shape"]), tuple(content["class_names"])
            spec = DataSpec(Task(content["task"]), Kind(content["kind"]), shape, content["targets"], names)
            scale, counts = content["normalise"], content["class_counts"]
            normalise = None
            if scale is not None:
                normalise = Normalise(*(torch.tensor(scale[key], dtype=torch.float64) for key in ("mean", "std")))
            class_counts = None if counts is None else torch.tensor(counts)
            background = content.get("background")  # runs of early versions ignored transparency
            if background is not None:
                background = tuple(background)
            _validate(spec, normalise, class_counts, background)
            metadata = cls(spec, normalise, class_counts, content["foreign_transform"], background)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else message_of(error)
            raise LabError(
                f"{path} is damaged ({reason}): delete it; then the data themselves are read instead"
            ) from error
        return metadata

    def check_compatible(self, spec: DataSpec) -> None:
        """Raise LabError unless other data have the task and the classes that the run was trained for."""
        if spec.task is not self.spec.task or spec.targets != self.spec.targets:
            raise LabError(
                f"the data are {_describe(spec)}, but the run was trained on {_describe(self.spec)}: choose other data"
            )
        for number, (trained, given) in enumerate(zip(self.spec.class_names, spec.class_names, strict=False)):
            if trained != given:
                raise LabError(
                    f"class {number} is {trained} in the run and {given} in these data: name the classes as in training"
                )


class ExperimentDataModule(LightningDataModule, ABC):
    """Base class of data sets with the splits train, val and test. A subclass sets `spec` and implements `load`.

    Args:
        batch_size: global training batch size; None for full batches.
        eval_batch_size: batch size of validation and test; None for full batches. Results do not depend on it.
        seed: seed of the order and the augmentation, usually the seed of the run.
    """

    spec: DataSpec
    augment: Augment | None = None
    transform: Callable[[Tensor], Tensor] | None = None
    mix: Mix | None = None
    _unmixed_kind: Kind | None = None
    corruptions: Sequence[Corruption] = ()
    manifest: manifests.Manifest | None = None
    """Record of what the corruptions changed; `setup` sets it."""
    expected_manifest: manifests.Manifest | None = None
    """Manifest of the run that is rebuilt or resumed; `setup` raises LabError if `manifest` differs from it."""
    may_download: bool = True
    """Whether `prepare_data` may download files."""
    background: tuple[int, int, int] | None = (255, 255, 255)
    """RGB colour under transparent parts of image files; None to ignore transparency."""
    workers = 0
    """Number of worker processes for splits that are not in memory."""
    ignore_index: int | None = None
    """Class index that the loss ignores; `setup` leaves out its examples, like those with an unknown label."""
    val_split = "val"
    """Split that `val_dataloader` reads; "train" to evaluate on the training data."""
    training_metadata: DataMetadata | None = None
    """Metadata of the training data of a finished run, if the run is evaluated on these data; otherwise None."""

    def __init__(self, batch_size: int | None = None, eval_batch_size: int | None = None, seed: int = 0) -> None:
        super().__init__()
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size is not None and (not isinstance(size, int) or size < 1):
                raise LabError(f"data.{name} must be 1 or more, or null for all examples at once: got {size}")
        if not isinstance(seed, int):
            raise LabError(f"data.seed must be an integer, got {seed!r}")
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.splits: Mapping[str, Source] = {}
        self._loaders: list[Loader] = []

    @abstractmethod
    def load(self) -> Mapping[str, Source]:
        """Return the splits "train", "val" and "test": `Examples`, or a pair of inputs and targets, each.

        May set `transform`, fitted to the training split. `setup` converts arrays and dtypes, and leaves out examples
        without a known label, see `losslab.data.checks.check_splits`.
        """

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 -- Lightning's signature
        """Read the data in the first call. Move them to the GPU of the trainer if half of its free memory suffices."""
        if not self.splits:
            self.spec.check()
            try:
                splits: Mapping[str, Source] = self.load()
                given = replace(self.spec, kind=self.given_kind)
                splits = check_splits(splits, given, type(self).__name__, self.transform, self.ignore_index)
                if self.corruptions:
                    train, self.manifest = manifests.apply(splits["train"], self.corruptions, self.spec)
                    splits = {**splits, "train": train}
            except (MemoryError, RuntimeError, OverflowError) as error:  # torch raises these for absurd sizes
                raise LabError(f"the data cannot be created with these settings: {message_of(error)}") from error
            if self.expected_manifest is not None:
                manifests.verify(self.manifest, self.expected_manifest)
            self.splits = splits
            if self.training_metadata is not None and self.training_metadata.normalise is not None:
                self.transform = self.training_metadata.normalise
        device = self._device()
        in_memory = {name: source for name, source in self.splits.items() if isinstance(source, Examples)}
        if device.type == "cuda" and any(examples.device != device for examples in in_memory.values()):
            needed = sum(tensor.nbytes for examples in in_memory.values() for tensor in examples)
            free = torch.cuda.mem_get_info(device)[0]
            if needed > free / 2:
                sizes = format_bytes(needed), format_bytes(free)
                logger.info("the data stay in host memory: they take %s, and %s are free on %s", *sizes, device)
            else:
                self.splits = {**self.splits, **{name: examples.to(device) for name, examples in in_memory.items()}}

    def corrupt(self, corruptions: Sequence[Corruption]) -> None:
        """Apply corruptions, in this order, when the training split is read. Raises LabError if one does not fit."""
        for corruption in corruptions:
            corruption.check(self.spec)
        self.corruptions = corruptions

    def enable_mixing(self, mix: Mix) -> None:
        """Mix training batches; all targets become probabilities. Raises LabError unless each image has one class."""
        if self.spec.task is not Task.MULTICLASS or len(self.spec.input_shape) != 3:
            raise LabError("mix= needs images with class indices: use data=cifar10, digits or image_folder, or no mix=")
        self._unmixed_kind = self.spec.kind
        self.mix, self.spec = mix, replace(self.spec, kind=Kind.PROBABILITIES)

    @property
    def given_kind(self) -> Kind:
        """Kind of the targets that `load` returns. Those of the batches are probabilities if `mix` is set."""
        return self._unmixed_kind or self.spec.kind

    @property
    def class_counts(self) -> Tensor | None:
        """Number of training examples of each class, int64 (C,) on the CPU; None for regression.

        For probabilities, the rounded sum of each class; for 0/1 labels, the number of ones of each label, (K,).
        Indices outside 0..C-1 are not counted. Raises LabError before `setup`.
        """
        if self.spec.kind is Kind.VALUES:
            return None
        if self.training_metadata is not None:
            return self.training_metadata.class_counts
        if not self.splits:
            raise LabError("class counts are available after the data are read: call setup() first")
        target = self.splits["train"].target.cpu()
        if target.is_floating_point():
            return target.double().sum(0).round().long()
        valid = target[(target >= 0) & (target < self.spec.targets)]
        return torch.bincount(valid, minlength=self.spec.targets)

    @property
    def metadata(self) -> DataMetadata:
        """Properties of the training data, which each run stores. Call `setup` first."""
        transform, name = self.transform, None
        if not isinstance(transform, Normalise | None):
            transform, name = None, getattr(transform, "__name__", type(transform).__name__)
        background = self.background if len(self.spec.input_shape) == 3 else None
        contents = {split: [source.size, *weighted_means(source)] for split, source in self.splits.items()}
        return DataMetadata(self.spec, transform, self.class_counts, name, background, contents)

    def teardown(self, stage: str | None = None) -> None:  # noqa: ARG002 -- Lightning's signature
        """Stop the worker processes of all loaders."""
        for loader in self._loaders:
            loader.close()
        self._loaders.clear()

    def train_dataloader(self) -> Loader:
        """Return a loader of shuffled and augmented batches; with `overfit_batches`, of equal, unaugmented batches."""
        overfit = self.trainer is not None and bool(self.trainer.overfit_batches)  # type: ignore[attr-defined]
        return self._loader("train", self.batch_size, random=not overfit)

    def val_dataloader(self) -> Loader:
        """Return a loader of all examples of `val_split`, in order."""
        return self._loader(self.val_split, self.eval_batch_size)

    def test_dataloader(self) -> Loader:
        """Return a loader of all test examples, in order."""
        return self._loader("test", self.eval_batch_size)

    predict_dataloader = test_dataloader

    def _loader(self, split: str, batch_size: int | None, *, random: bool = False) -> Loader:
        """Make a loader; if `random`, its batches are shuffled, augmented and mixed."""
        source, trainer, classes = self.splits[split], self.trainer, self.spec.targets
        mix: Callable[..., Batch] | None = None
        if self.mix is not None:
            mix = partial(self.mix, classes, self.seed) if random else partial(encode_classes, classes)
        loader = Loader(
            source,
            batch_size or max(1, source.size),
            seed=self.seed,
            shuffle=random,
            augment=self.augment if random else None,
            transform=self.transform,
            mix=mix,
            rank=trainer.global_rank if trainer is not None else 0,
            world_size=trainer.world_size if trainer is not None else 1,
            workers=self.workers,
            device=self._device() if trainer is not None else None,
        )
        self._loaders.append(loader)
        return loader

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        # The batches are usually there already. Lightning would search them for tensors, for longer than a tiny step.
        if isinstance(batch, Batch) and all(tensor.device == device for tensor in batch):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _device(self) -> torch.device:
        """Return the GPU of the trainer, or else the CPU. Lightning moves batches from it to other accelerators."""
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        return device if device.type == "cuda" else torch.device("cpu")


def split_rows(count: int, sizes: tuple[int, ...], seed: int) -> list[Tensor]:
    """Draw disjoint parts of these sizes from rows 0..count-1, each sorted. Raises LabError if the sizes do not fit."""
    if sum(sizes) > count or any(size < 1 for size in sizes):
        raise LabError(f"cannot split {count:,} examples into parts of {', '.join(f'{size:,}' for size in sizes)}")
    rows = torch.randperm(count, generator=random_keys.generator(seed, random_keys.SPLIT))
    return [part.sort().values for part in rows[: sum(sizes)].split(sizes)]


def _validate(
    spec: DataSpec, normalise: Normalise | None, class_counts: Tensor | None, background: tuple[int, ...] | None
) -> None:
    """Raise ValueError if an argument has a value that no data set can have."""
    spec.check()
    if normalise is not None:
        mean, std = normalise.mean, normalise.std
        fits = len(spec.input_shape) == 3 and mean.shape == std.shape == spec.input_shape[:1]
        if not (fits and mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
            raise ValueError("invalid normalise")
    if class_counts is not None and class_counts.shape != (spec.targets,):
        raise ValueError("invalid class_counts")
    if background is not None and not (len(background) == 3 and all(value in range(256) for value in background)):
        raise ValueError("invalid background")


def _describe(spec: DataSpec) -> str:
    """Return the task and the number of targets, such as "multiclass with 10 classes"."""
    units = {Task.MULTICLASS: "class", Task.MULTILABEL: "label", Task.BINARY: "label", Task.REGRESSION: "value"}
    plural = "es" if spec.task is Task.MULTICLASS else "s"
    return f"{spec.task} with {spec.targets} {units[spec.task]}{plural * (spec.targets != 1)}"
