"""What every fault promises, and how what is asked of it is checked."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from losslab.data.batch import DataSpec
from losslab.data.corruption.subset import TrainingSplit
from losslab.errors import LabError
from losslab.targets import Kind, Task


@dataclass(frozen=True)
class Corruption(ABC):
    """Something that is made wrong with the training data. The fields of a subclass are what can be set."""

    group: ClassVar[str]
    """Of conf/: "noise" or "imbalance"."""
    kind: ClassVar[str]
    """The choice in that group."""

    @property
    def parameters(self) -> dict[str, Any]:
        """What was set, by name."""
        return asdict(self)

    @abstractmethod
    def check(self, facts: DataSpec) -> None:
        """Refuse data that cannot have this fault, before any of it is read.

        Raises:
            LabError: it names what would fit.
        """

    @abstractmethod
    def __call__(self, train: TrainingSplit, facts: DataSpec) -> TrainingSplit:
        """The training split with this fault. The truth and the inputs are as they were.

        Raises:
            LabError: these examples cannot have it.
        """

    def must(self, name: str, what: str, *, holds: bool) -> None:
        """Refuse a value that was set to something it cannot be.

        Raises:
            LabError: it does not hold.
        """
        if not holds:
            raise LabError(f"{self.group}.{name} must be {what}, got {getattr(self, name)!r}")

    def must_be_seed(self, seed: Any) -> None:
        """Refuse what is no seed.

        Raises:
            LabError: it is no whole number.
        """
        self.must("seed", "a whole number", holds=isinstance(seed, int) and not isinstance(seed, bool))

    def must_have_classes(self, facts: DataSpec) -> None:
        """Refuse data whose targets are not class indices or 0/1 labels.

        Raises:
            LabError: it names the noise that fits.
        """
        if facts.kind is Kind.PROBABILITIES:
            raise LabError(f"{self.group}={self.kind} changes classes, and the targets of these data are probabilities")
        if facts.task is Task.REGRESSION:
            fits = "noise=outliers or heteroscedastic" if self.group == "noise" else "~imbalance (or imbalance=none)"
            raise LabError(f"{self.group}={self.kind} is for classes, and these data have values: use {fits}")


def is_number(value: Any, low: float, high: float) -> bool:
    """Whether this is a number from low to high."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
