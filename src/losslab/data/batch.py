"""The containers of data: `Batch`, `Examples` (a split in memory), `Source` (any split) and `DataSpec`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from losslab.targets import Kind, Task


class Batch(NamedTuple):
    """One batch. Losses learn from `target`, metrics score against `truth`; label noise makes the two differ."""

    inputs: Tensor
    """(N, features) or (N, channels, height, width), float."""
    target: Tensor
    """Targets of the kind that the data set declares in `DataSpec.kind`."""
    truth: Tensor
    """y (N,) for exclusive classes, 0/1 (N, K) for labels, values (N, D)."""
    index: Tensor  # type: ignore[assignment]
    """int64 (N,): each example's index in its data set, by which a score can be traced back to it."""


class Examples(NamedTuple):
    """A whole split in memory, with the fields of `Batch`. Images are uint8 (N, height, width, channels)."""

    inputs: Tensor
    target: Tensor
    truth: Tensor
    index: Tensor  # type: ignore[assignment]

    @classmethod
    def of(cls, inputs: Tensor, target: Tensor, truth: Tensor | None = None) -> Self:
        """Examples with indices 0..N-1. The truth defaults to the target."""
        return cls(inputs, target, target if truth is None else truth, torch.arange(len(inputs)))

    @property
    def size(self) -> int:
        """Number of examples; len() is the number of fields."""
        return len(self.inputs)

    @property
    def shape(self) -> torch.Size:
        """Shape of one example's inputs."""
        return self.inputs.shape[1:]

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.inputs.device

    @property
    def nbytes(self) -> int:
        """Memory of all tensors in bytes."""
        return sum(tensor.nbytes for tensor in self)

    def take(self, rows: Tensor) -> "Examples":
        """Select rows; examples keep their index."""
        return self.map(lambda tensor: tensor.index_select(0, rows))

    def to(self, device: torch.device) -> "Examples":
        """Copy to another device, asynchronously if the memory is pinned."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def map(self, function: Callable[[Tensor], Tensor]) -> "Examples":
        """Apply a function to every tensor; to the target only once if it is the truth too."""
        target = function(self.target)
        truth = target if self.truth is self.target else function(self.truth)
        return Examples(function(self.inputs), target, truth, function(self.index))


class Source(Protocol):
    """A split that a loader can read: `Examples` in memory, or files that are decoded on access."""

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
        """Targets of all examples, in memory even if the inputs are not."""

    def take(self, rows: Tensor) -> Examples:
        """Read the examples of these rows; `index` is their index in the data set."""


@dataclass(frozen=True)
class DataSpec:
    """What a data set declares before it is read: all that is needed to build a network, a learner and metrics."""

    task: Task
    kind: Kind
    """Kind of the targets in every batch."""
    input_shape: tuple[int, ...]
    """Shape of one example as the network receives it: (features,) or (channels, height, width)."""
    targets: int
    """C classes, K labels or D values."""
    class_names: tuple[str, ...] = ()
    """A name for each class or label; empty for regression."""
    counts: bool = False
    """Whether the values are counts 0, 1, 2, ..."""

    @property
    def names(self) -> list[str]:
        """A name for each class or label (two for a binary task): `class_names`, or numbers if there are none."""
        count = 2 if self.task is Task.BINARY else self.targets
        return list(self.class_names) if len(self.class_names) == count else [str(number) for number in range(count)]
