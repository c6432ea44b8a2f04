"""Training splits, in memory or on disk, whose rows can be selected and whose targets can be replaced."""

import torch
from torch import Tensor

from losslab.data.batch import Examples, Source


class Subset:
    """Rows of a source that is not in memory, with new targets. The truth is the source's target.

    Args:
        source: source to read from.
        rows: int64 (N,), the selected rows of the source.
        target: targets of these rows, (N,) or (N, K).
    """

    def __init__(self, source: Source, rows: Tensor, target: Tensor) -> None:
        self.source, self.index, self.target, self.truth = source, rows, target, source.target[rows]
        self.size, self.shape, self.device = len(rows), source.shape, source.device

    def take(self, rows: Tensor) -> Examples:
        """Read the examples of these rows; `index` is their index in the source."""
        return self.source.take(self.index[rows])._replace(target=self.target[rows])


TrainingSplit = Examples | Subset
"""A training split: target, truth and index of all its examples are in memory."""


def as_training_split(source: Source) -> TrainingSplit:
    """The source itself if it is in memory, else a `Subset` of all its rows."""
    return source if isinstance(source, Examples) else Subset(source, torch.arange(source.size), source.target)


def select_rows(train: TrainingSplit, rows: Tensor) -> TrainingSplit:
    """The examples of these rows, which keep their index."""
    if isinstance(train, Examples):
        return train.take(rows)
    return Subset(train.source, train.index[rows], train.target[rows])


def with_target(train: TrainingSplit, target: Tensor) -> TrainingSplit:
    """The same examples with other targets; the truth stays."""
    return train._replace(target=target) if isinstance(train, Examples) else Subset(train.source, train.index, target)
