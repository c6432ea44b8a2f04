"""`Batch`; `Examples`, a split in memory; `Source`, a split in memory or on disk; and `DataSpec`, a description."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from losslab.errors import LabError
from losslab.targets import Kind, Task

SPLITS = ("train", "val", "test")
"""The names of the splits of a data module."""


class Batch(NamedTuple):
    """One batch. Losses compare outputs with `target`, metrics with `truth`; corruption and mixing make them differ."""

    inputs: Tensor
    """(N, features) or (N, channels, height, width), float."""
    target: Tensor
    """Targets of the kind that the data set declares in `DataSpec.kind`."""
    truth: Tensor
    """Targets before corruption and mixing: class indices y (N,), 0/1 labels (N, K), or values (N, D)."""
    index: Tensor  # type: ignore[assignment]
    """Index of each example in its data set, int64 (N,)."""


class Examples(NamedTuple):
    """A whole split in memory, with the fields of `Batch`. Images are uint8 (N, height, width, channels)."""

    inputs: Tensor
    target: Tensor
    truth: Tensor
    index: Tensor  # type: ignore[assignment]

    @classmethod
    def of(cls, inputs: Tensor, target: Tensor, truth: Tensor | None = None) -> Self:
        """Create examples with indices 0..N-1. `truth` defaults to `target`."""
        return cls(inputs, target, target if truth is None else truth, torch.arange(len(inputs)))

    @property
    def size(self) -> int:
        """Number of examples. len() gives the number of fields instead."""
        return len(self.inputs)

    @property
    def shape(self) -> torch.Size:
        return self.inputs.shape[1:]

    @property
    def device(self) -> torch.device:
        return self.inputs.device

    def take(self, rows: Tensor) -> "Examples":
        """Select rows. The selected examples keep their `index`."""
        return self.map(lambda tensor: tensor.index_select(0, rows))

    def to(self, device: torch.device) -> "Examples":
        """Copy to another device, asynchronously if the memory is pinned."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def map(self, function: Callable[[Tensor], Tensor]) -> "Examples":
        """Apply a function to every tensor. If target and truth are the same tensor, so are their results."""
        target = function(self.target)
        truth = target if self.truth is self.target else function(self.truth)
        return Examples(function(self.inputs), target, truth, function(self.index))


class Source(Protocol):
    """Interface of a split that a loader can read: `Examples` in memory, or files that `take` decodes."""

    @property
    def size(self) -> int:
        """Number of examples."""

    @property
    def shape(self) -> torch.Size:
        """Shape of one example's inputs."""

    @property
    def device(self) -> torch.device:
        """Device of the rows that `take` expects and of the examples that it returns."""

    @property
    def target(self) -> Tensor:
        """Targets of all examples. They are in memory even if the inputs are not."""

    def take(self, rows: Tensor) -> Examples:
        """Read the examples in these rows. Their `index` is the index in the whole data set."""


@dataclass(frozen=True)
class DataSpec:
    """Properties of a data set that are known before it is read, sufficient to build network, learner and metrics."""

    task: Task
    kind: Kind
    """Kind of the targets in every batch."""
    input_shape: tuple[int, ...]
    """Shape of one input of the network: (features,) or (channels, height, width)."""
    targets: int
    """Number of classes C, labels K (1 for a binary task) or values D, depending on the task."""
    class_names: tuple[str, ...] = ()
    """Names of the classes or labels; empty for regression."""
    counts: bool = False
    """Whether the values are counts 0, 1, 2, ..."""

    def __post_init__(self) -> None:
        for name, convert in (("task", Task), ("kind", Kind), ("input_shape", tuple), ("class_names", tuple)):
            value = getattr(self, name)
            with suppress(TypeError, ValueError):  # `check` names the field
                object.__setattr__(self, name, value if convert is tuple and isinstance(value, str) else convert(value))

    def check(self) -> None:
        """Raise LabError, which names the field, if a value does not fit the task."""
        for name, kind in (("task", Task), ("kind", Kind)):
            if not isinstance(getattr(self, name), kind):
                raise LabError(f"spec.{name} must be one of {', '.join(kind)}, got {getattr(self, name)!r}")
        low, kinds = _LIMITS[self.task]
        if self.kind not in kinds:
            raise LabError(f"spec.kind must be {' or '.join(kinds)} for a {self.task} task, got {self.kind}")
        sizes, targets, names = self.input_shape, self.targets, self.class_names
        if not isinstance(sizes, tuple) or not sizes or not all(type(size) is int and size > 0 for size in sizes):
            raise LabError(f"spec.input_shape must be a tuple of integers above 0, such as (8,), got {sizes!r}")
        is_binary = self.task is Task.BINARY
        if type(targets) is not int or targets < low or (is_binary and targets > 1):
            expected = "1" if is_binary else f"an integer, {low} or more,"
            raise LabError(f"spec.targets must be {expected} for a {self.task} task, got {targets!r}")
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise LabError(f"spec.class_names must be a tuple of strings, got {names!r}")
        count = 2 if is_binary else targets
        if len(names) not in {0, count}:
            raise LabError(
                f"spec.class_names must be {count} names for a {self.task} task with targets={targets}, or empty: got "
                f"{len(names)}"
            )
        repeated = [name for number, name in enumerate(names) if name in names[:number]]
        if repeated:
            raise LabError(f"spec.class_names contains {repeated[0]!r} twice: each class needs a name of its own")

    @property
    def names(self) -> list[str]:
        """Names of all classes (two for a binary task) or labels: `class_names`, or numbers if there are none."""
        count = 2 if self.task is Task.BINARY else self.targets
        return list(self.class_names) or [str(number) for number in range(count)]


_LIMITS: dict[Task, tuple[int, tuple[Kind, ...]]] = {
    Task.REGRESSION: (1, (Kind.VALUES,)),
    Task.BINARY: (1, (Kind.BINARY,)),
    Task.MULTICLASS: (2, (Kind.INDEX, Kind.PROBABILITIES)),
    Task.MULTILABEL: (1, (Kind.BINARY,)),
}
"""The smallest `DataSpec.targets` and the possible kinds of target for each task."""
