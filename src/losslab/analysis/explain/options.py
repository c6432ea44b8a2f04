"""What networks are looked at with. Imports no torch."""

from dataclasses import dataclass
from typing import Any

from losslab.errors import LabError

LIMITS = {"points": (2, 1001), "examples": (2, 2**63 - 1), "seed": (0, 2**63 - 1)}
"""The least and the most of each number."""
SPLITS = {"train": "training", "val": "validation", "test": "test"}
"""Each split, and what it is called in a sentence."""
CHECKPOINTS = ("best", "last")


def checked(name: str, value: Any) -> int:
    """A number of a Sight, within its limits.

    Raises:
        LabError: it is none, or beyond them.
    """
    low, high = LIMITS[name]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        most = f"to {high}" if high < 2**63 - 1 else "to 2⁶³ - 1"
        raise LabError(f"{name} must be a whole number from {low} {most}, got {value!r}")
    return value


@dataclass(frozen=True)
class Sight:
    """How finely a network is looked at, and on which examples.

    Raises:
        LabError: a value that cannot be.
    """

    points: int = 21
    """Along each side of a plane, or on a line with its ends."""
    examples: int = 1000
    """So many, drawn from the split, unaugmented."""
    split: str = "train"
    """Where they are drawn from: "train", "val" or "test"."""
    seed: int = 0
    """Of the examples, and of random directions."""
    ckpt: str = "best"
    """Which weights: "best" or "last"."""

    def __post_init__(self) -> None:
        for name in LIMITS:
            checked(name, getattr(self, name))
        for name, known in (("split", tuple(SPLITS)), ("ckpt", CHECKPOINTS)):
            if getattr(self, name) not in known:
                raise LabError(f"{name} must be {' or '.join(known)}, got {getattr(self, name)!r}")

    @property
    def words(self) -> str:
        """The split in a sentence."""
        return SPLITS[self.split]


USUAL = Sight()
