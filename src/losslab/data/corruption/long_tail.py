"""A long tail: classes that are rarer and rarer."""

from dataclasses import dataclass
from math import floor, inf
from typing import ClassVar

import torch
from torch import Tensor

from losslab.data import random_keys
from losslab.data.batch import DataSpec
from losslab.data.corruption import subset
from losslab.data.corruption.base import Corruption, is_number
from losslab.data.corruption.subset import TrainingSplit
from losslab.errors import LabError
from losslab.targets import Task


@dataclass(frozen=True)
class LongTail(Corruption):
    """Class i keeps floor(n · ratio^(-i/(C - 1))) examples (Cao et al. 2019, "Label-distribution-aware margin loss").

    n is the number of examples of class 0, the largest: the most for which every class has enough. Which ones a class
    keeps depends on the seed and the class alone, so those of a smaller share are among those of a larger one. What
    inputs are normalised by stays that of the whole split: the same image is the same input at any ratio.

    Args:
        ratio: how many times as large the largest class is as the smallest, 1 or more.
        seed: of the draws.
    """

    ratio: float
    seed: int = 0
    group: ClassVar[str] = "imbalance"
    kind: ClassVar[str] = "long_tail"

    def __post_init__(self) -> None:
        self.must("ratio", "a number from 1", holds=is_number(self.ratio, 1, inf) and self.ratio < inf)
        self.must_be_seed(self.seed)

    def check(self, facts: DataSpec) -> None:
        """Refuse data without classes that exclude each other."""
        self.must_have_classes(facts)
        if facts.task is Task.MULTILABEL:
            raise LabError(
                "imbalance=long_tail is for classes that exclude each other, and these data have several labels"
            )

    def __call__(self, train: TrainingSplit, facts: DataSpec) -> TrainingSplit:
        """Some examples of each class, in the order they had."""
        labels = train.target if facts.task is Task.MULTICLASS else train.target.squeeze(1).long()
        classes = facts.targets if facts.task is Task.MULTICLASS else 2
        members = [(labels == label).nonzero().squeeze(1) for label in range(classes)]
        available = [len(rows) for rows in members]
        sizes = self.sizes(available)
        if min(sizes) < 1:
            fewest = min(available)
            poor = available.index(0) if fewest == 0 else sizes.index(0)
            remedy = f"choose one of at most {fewest:,}" if fewest else "a class without any cannot be made rarer"
            raise LabError(
                f"imbalance.ratio={self.ratio:g} leaves class {_name(facts, poor)} none of its {available[poor]:,} "
                f"training examples: {remedy}"
            )
        parts = [self._some(rows, size, label) for label, (rows, size) in enumerate(zip(members, sizes, strict=True))]
        return subset.select_rows(train, torch.cat(parts).sort().values)

    def sizes(self, available: list[int]) -> list[int]:
        """How many examples each class keeps, of those there are."""
        shares = [self.ratio ** (-label / (len(available) - 1)) for label in range(len(available))]
        # A hair above, where a power that should be whole comes out below it.
        largest = min(floor(there / share + 1e-9) for there, share in zip(available, shares, strict=True))
        return [floor(largest * share + 1e-9) for share in shares]

    def _some(self, rows: Tensor, size: int, label: int) -> Tensor:
        random = random_keys.generator(self.seed, random_keys.LONG_TAIL, label)
        return rows[torch.randperm(len(rows), generator=random)[:size]]


def _name(facts: DataSpec, label: int) -> str:
    return facts.class_names[label] if facts.class_names else str(label)
