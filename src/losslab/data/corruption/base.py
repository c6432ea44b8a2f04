"""`Corruption`, the base class, and the training splits to which corruptions apply, in memory or on disk."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from losslab.data.batch import DataSpec, Examples, Source
from losslab.errors import LabError
from losslab.targets import Kind, Task


class Subset:
    """Selected rows, int64 (N,), of a source that is not in memory, with new targets (N,) or (N, K).

    The truth is the target of the source.
    """

    def __init__(self, source: Source, rows: Tensor, target: Tensor) -> None:
        self.source, self.index, self.target, self.truth = source, rows, target, source.target[rows]
        self.size, self.shape, self.device = len(rows), source.shape, source.device

    def take(self, rows: Tensor) -> Examples:
        """Read the examples in these rows of the subset. Their `index` is the row in the source."""
        return self.source.take(self.index[rows])._replace(target=self.target[rows])


TrainingSplit = Examples | Subset
"""A training split. Target, truth and index of all examples are in memory; the inputs of a `Subset` are not."""


def select_rows(train: TrainingSplit, rows: Tensor) -> TrainingSplit:
    """Return a split of the examples in these rows. The examples keep their `index`."""
    if isinstance(train, Examples):
        return train.take(rows)
    return Subset(train.source, train.index[rows], train.target[rows])


def with_target(train: TrainingSplit, target: Tensor) -> TrainingSplit:
    """Return a split of the same examples with other targets. `truth`, their labels before corruption, stays."""
    return train._replace(target=target) if isinstance(train, Examples) else Subset(train.source, train.index, target)


@dataclass(frozen=True)
class Corruption(ABC):
    """Base class of corruptions of the training split. The dataclass fields of a subclass are its parameters."""

    group: ClassVar[str]
    """Config group: "noise" or "imbalance"."""
    kind: ClassVar[str]
    """Name of the corruption in its config group, such as "symmetric"."""

    def check(self, spec: DataSpec) -> None:
        """Raise LabError if the corruption cannot be applied to such data. By default, it needs class labels."""
        if spec.kind is Kind.PROBABILITIES:
            raise LabError(f"{self.group}={self.kind} needs class indices, and these targets are probabilities")
        if spec.task is Task.REGRESSION:
            fits = "noise=outliers or heteroscedastic" if self.group == "noise" else "~imbalance (or imbalance=none)"
            raise LabError(f"{self.group}={self.kind} is for classes, and these data have values: use {fits}")

    @abstractmethod
    def __call__(self, train: TrainingSplit, spec: DataSpec) -> TrainingSplit:
        """Return the corrupted split. Examples keep truth and inputs. Raises LabError if it cannot be corrupted."""

    def require(self, name: str, expected: str, *, holds: bool) -> None:
        """Raise LabError "GROUP.NAME must be EXPECTED, got VALUE" unless `holds`."""
        if not holds:
            raise LabError(f"{self.group}.{name} must be {expected}, got {getattr(self, name)!r}")

    def require_seed(self, seed: Any) -> None:
        """Raise LabError unless the seed is an integer."""
        self.require("seed", "an integer", holds=isinstance(seed, int) and not isinstance(seed, bool))


def is_number(value: Any, low: float, high: float) -> bool:
    """Return whether the value is a number from `low` to `high`, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
