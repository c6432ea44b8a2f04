"""`Corruption`, the base class, and the training splits that corruptions work on, in memory or on disk."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from losslab.data.batch import DataSpec, Examples, Source
from losslab.errors import LabError
from losslab.targets import Kind, Task


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


@dataclass(frozen=True)
class Corruption(ABC):
    """A corruption of the training split. The dataclass fields of a subclass are its parameters."""

    group: ClassVar[str]
    """Config group: "noise" or "imbalance"."""
    kind: ClassVar[str]
    """Option in that group, such as "symmetric"."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameter values by name."""
        return asdict(self)

    @abstractmethod
    def check(self, spec: DataSpec) -> None:
        """Raise LabError, which names one that fits, unless the corruption fits the data, which are not yet read."""

    @abstractmethod
    def __call__(self, train: TrainingSplit, spec: DataSpec) -> TrainingSplit:
        """Return the corrupted split, with the same truth and inputs. Raises LabError if it cannot be corrupted so."""

    def require(self, name: str, expected: str, *, holds: bool) -> None:
        """Raise LabError "GROUP.NAME must be EXPECTED, got VALUE" unless `holds`."""
        if not holds:
            raise LabError(f"{self.group}.{name} must be {expected}, got {getattr(self, name)!r}")

    def require_seed(self, seed: Any) -> None:
        """Raise LabError unless the seed is a whole number."""
        self.require("seed", "a whole number", holds=isinstance(seed, int) and not isinstance(seed, bool))

    def require_classes(self, spec: DataSpec) -> None:
        """Raise LabError unless the targets are class indices or 0/1 labels."""
        if spec.kind is Kind.PROBABILITIES:
            raise LabError(f"{self.group}={self.kind} changes classes, and the targets of these data are probabilities")
        if spec.task is Task.REGRESSION:
            fits = "noise=outliers or heteroscedastic" if self.group == "noise" else "~imbalance (or imbalance=none)"
            raise LabError(f"{self.group}={self.kind} is for classes, and these data have values: use {fits}")


def is_number(value: Any, low: float, high: float) -> bool:
    """Whether the value is a number (no bool) from low to high."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
