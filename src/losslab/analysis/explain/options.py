"""The options of the explanations of networks. Imports no torch."""

from dataclasses import dataclass
from typing import Any

from losslab.errors import LabError

LIMITS = {"points": (2, 1001), "examples": (2, 2**63 - 1), "seed": (0, 2**63 - 1)}
"""Smallest and largest value of each number."""
SPLITS = {"train": "training", "val": "validation", "test": "test"}
"""Each split and its name in a sentence."""
CHECKPOINTS = ("best", "last")


def validate_number(name: str, value: Any) -> int:
    """Check one of the numbers in `LIMITS`.

    Raises:
        LabError: the value is no integer or is outside its limits.
    """
    low, high = LIMITS[name]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        most = f"to {high}" if high < 2**63 - 1 else "to 2⁶³ - 1"
        raise LabError(f"{name} must be a whole number from {low} {most}, got {value!r}")
    return value


@dataclass(frozen=True)
class LandscapeOptions:
    """On which examples, weights and how many points a network is evaluated.

    Raises:
        LabError: a value is invalid.
    """

    points: int = 21
    """Along each side of a plane, or on a line including its ends."""
    examples: int = 1000
    """How many are drawn from the split, unaugmented."""
    split: str = "train"
    """The split: "train", "val" or "test"."""
    seed: int = 0
    """Of the examples drawn and of the random directions."""
    ckpt: str = "best"
    """Which weights: "best" or "last"."""

    def __post_init__(self) -> None:
        for name in LIMITS:
            validate_number(name, getattr(self, name))
        for name, allowed in (("split", tuple(SPLITS)), ("ckpt", CHECKPOINTS)):
            if getattr(self, name) not in allowed:
                raise LabError(f"{name} must be {' or '.join(allowed)}, got {getattr(self, name)!r}")

    @property
    def split_name(self) -> str:
        """The split's name in a sentence."""
        return SPLITS[self.split]


DEFAULTS = LandscapeOptions()
