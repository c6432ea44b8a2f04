"""`Corruption`, the base class, and the checks of its parameters and of the data that it fits."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from losslab.data.batch import DataSpec
from losslab.data.corruption.subset import TrainingSplit
from losslab.errors import LabError
from losslab.targets import Kind, Task


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
    def check(self, facts: DataSpec) -> None:
        """Check that the corruption fits the data, before they are read.

        Raises:
            LabError: it does not; the message names one that does.
        """

    @abstractmethod
    def __call__(self, train: TrainingSplit, facts: DataSpec) -> TrainingSplit:
        """Return the corrupted training split. Truth and inputs stay unchanged.

        Raises:
            LabError: these examples cannot be corrupted so.
        """

    def require(self, name: str, expected: str, *, holds: bool) -> None:
        """Raise LabError "GROUP.NAME must be EXPECTED, got VALUE" unless `holds`."""
        if not holds:
            raise LabError(f"{self.group}.{name} must be {expected}, got {getattr(self, name)!r}")

    def require_seed(self, seed: Any) -> None:
        """Raise LabError unless the seed is a whole number."""
        self.require("seed", "a whole number", holds=isinstance(seed, int) and not isinstance(seed, bool))

    def require_classes(self, facts: DataSpec) -> None:
        """Raise LabError unless the targets are class indices or 0/1 labels."""
        if facts.kind is Kind.PROBABILITIES:
            raise LabError(f"{self.group}={self.kind} changes classes, and the targets of these data are probabilities")
        if facts.task is Task.REGRESSION:
            fits = "noise=outliers or heteroscedastic" if self.group == "noise" else "~imbalance (or imbalance=none)"
            raise LabError(f"{self.group}={self.kind} is for classes, and these data have values: use {fits}")


def is_number(value: Any, low: float, high: float) -> bool:
    """Whether the value is a number (no bool) from low to high."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
