"""Part of a training split, or other targets for it, whether it lies in memory or is read from files."""

from functools import cached_property

import torch
from torch import Tensor

from losslab.data.batch import Examples, Source


class Subset:
    """Some examples of a source that is read from files, with targets of their own. The truth is the source's target.

    Args:
        source: where the examples are read from.
        rows: int64 (N,), which of them there are.
        target: of these rows, (N,) or (N, K).
    """

    def __init__(self, source: Source, rows: Tensor, target: Tensor) -> None:
        self.source, self.index, self.target = source, rows, target

    @property
    def size(self) -> int:
        """How many examples there are."""
        return len(self.index)

    @property
    def shape(self) -> torch.Size:
        """Of one example's inputs."""
        return self.source.shape

    @property
    def device(self) -> torch.device:
        """Where `take` expects rows and gives examples."""
        return self.source.device

    @cached_property
    def truth(self) -> Tensor:
        """The targets before anything was made wrong with them."""
        return self.source.target[self.index]

    def take(self, rows: Tensor) -> Examples:
        """The examples of these rows, numbered by their place in the source."""
        return self.source.take(self.index[rows])._replace(target=self.target[rows])


TrainingSplit = Examples | Subset
"""A training split: target, truth and index of all its examples are in memory."""


def as_training_split(source: Source) -> TrainingSplit:
    """A source as a training split."""
    return source if isinstance(source, Examples) else Subset(source, torch.arange(source.size), source.target)


def select_rows(train: TrainingSplit, rows: Tensor) -> TrainingSplit:
    """The examples of these rows alone, numbered as they were."""
    if isinstance(train, Examples):
        return train.take(rows)
    return Subset(train.source, train.index[rows], train.target[rows])


def with_target(train: TrainingSplit, target: Tensor) -> TrainingSplit:
    """The same examples with other targets; their truth stays."""
    return train._replace(target=target) if isinstance(train, Examples) else Subset(train.source, train.index, target)
