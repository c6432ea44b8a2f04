"""What a batch is, what a data set in memory is, and what a data set says about itself."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from losslab.targets import Kind, Task


class Batch(NamedTuple):
    """One batch. Losses learn from `target`; metrics score against `truth`; label noise makes the two differ."""

    inputs: Tensor
    """(N, features) or (N, channels, height, width), float."""
    target: Tensor
    """Of the kind that the data set declares."""
    truth: Tensor
    """y (N,) for exclusive classes, 0/1 (N, K) for labels, values (N, D)."""
    index: Tensor  # type: ignore[assignment]
    """int64 (N,): the example's place in its data set, so that a score can be traced back."""


class Examples(NamedTuple):
    """A whole split in memory, row by row what `Batch` holds. Images are uint8 (N, height, width, channels)."""

    inputs: Tensor
    target: Tensor
    truth: Tensor
    index: Tensor  # type: ignore[assignment]

    @classmethod
    def of(cls, inputs: Tensor, target: Tensor, truth: Tensor | None = None) -> Self:
        """Examples numbered from 0; the truth is the target unless given."""
        return cls(inputs, target, target if truth is None else truth, torch.arange(len(inputs)))

    @property
    def size(self) -> int:
        """How many examples there are. Not len(), which of a tuple is the number of its fields."""
        return len(self.inputs)

    @property
    def shape(self) -> torch.Size:
        """Of one example's inputs."""
        return self.inputs.shape[1:]

    @property
    def device(self) -> torch.device:
        """Where the examples lie."""
        return self.inputs.device

    @property
    def nbytes(self) -> int:
        """What they take of memory."""
        return sum(tensor.nbytes for tensor in self)

    def take(self, rows: Tensor) -> "Examples":
        """The examples of these rows, numbered as they were."""
        target = self.target.index_select(0, rows)
        truth = target if self.truth is self.target else self.truth.index_select(0, rows)
        return Examples(self.inputs.index_select(0, rows), target, truth, self.index.index_select(0, rows))

    def to(self, device: torch.device) -> "Examples":
        """The same examples on another device, without waiting for them where their memory is pinned."""
        target = self.target.to(device, non_blocking=True)
        truth = target if self.truth is self.target else self.truth.to(device, non_blocking=True)
        inputs, index = (tensor.to(device, non_blocking=True) for tensor in (self.inputs, self.index))
        return Examples(inputs, target, truth, index)


class Source(Protocol):
    """Where a loader takes its examples from: `Examples` in memory, or files that are read when they are asked for."""

    @property
    def size(self) -> int:
        """How many examples there are."""

    @property
    def shape(self) -> torch.Size:
        """Of one example's inputs."""

    @property
    def device(self) -> torch.device:
        """Where `take` expects rows and gives examples."""

    @property
    def target(self) -> Tensor:
        """The targets of all examples, which are in memory even where the inputs are not."""

    def take(self, rows: Tensor) -> Examples:
        """The examples of these rows, numbered by their place in the data set."""


@dataclass(frozen=True)
class DataSpec:
    """What must be known of a data set to build a network, a learner and its metrics, before any of it is read."""

    task: Task
    kind: Kind
    """The kind of target that every batch gives."""
    input_shape: tuple[int, ...]
    """Of one example, as the network sees it: (features,) or (channels, height, width)."""
    targets: int
    """C classes, K labels or D values."""
    class_names: tuple[str, ...] = ()
    """One name a class or label; empty for regression."""
    counts: bool = False
    """Whether values are counts: whole numbers from 0."""
