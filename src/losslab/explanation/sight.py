"""What networks are looked at with. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sight:
    """How finely a network is looked at, and on which examples."""

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

    @property
    def words(self) -> str:
        """The split in a sentence."""
        return {"train": "training", "val": "validation", "test": "test"}[self.split]


USUAL = Sight()
