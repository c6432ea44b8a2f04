"""Class imbalance: exponentially decreasing class sizes."""

from dataclasses import dataclass
from math import floor, inf
from typing import ClassVar

import torch

from losslab.data import random_keys
from losslab.data.batch import DataSpec
from losslab.data.corruption.base import Corruption, TrainingSplit, is_number, select_rows
from losslab.errors import LabError
from losslab.targets import Task


@dataclass(frozen=True)
class LongTail(Corruption):
    """Class i keeps floor(n · ratio^(-i/(C - 1))) examples (Cao et al. 2019, "Label-distribution-aware margin loss").

    n, the size of class 0, is the largest that the available examples of all classes allow. The choice of examples
    depends on the seed and the class only, so for the same n, a larger ratio keeps a subset of what a smaller ratio
    keeps. The inputs are normalised by the statistics of the uncorrupted split, so they do not depend on the ratio.

    Args:
        ratio: size of the largest class divided by the size of the smallest class, 1 or more.
        seed: seed of the random draws.
    """

    ratio: float
    seed: int = 0
    group: ClassVar[str] = "imbalance"
    kind: ClassVar[str] = "long_tail"

    def __post_init__(self) -> None:
        self.require("ratio", "a number, 1 or more", holds=is_number(self.ratio, 1, inf) and self.ratio < inf)
        self.require_seed(self.seed)

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        if spec.task is Task.MULTILABEL:
            raise LabError("imbalance=long_tail needs classes that exclude each other: these data have several labels")

    def __call__(self, train: TrainingSplit, spec: DataSpec) -> TrainingSplit:
        """Keep some examples of each class, in their original order."""
        multiclass = spec.task is Task.MULTICLASS
        labels = train.target if multiclass else train.target.squeeze(1).long()
        members = [(labels == label).nonzero().squeeze(1) for label in range(spec.targets if multiclass else 2)]
        available = [len(rows) for rows in members]
        sizes = self.sizes(available)
        if min(sizes) < 1:
            fewest = min(available)
            empty = available.index(0) if fewest == 0 else sizes.index(0)
            remedy = f"choose a ratio of at most {fewest:,}" if fewest else "leave out imbalance=long_tail"
            raise LabError(
                f"imbalance.ratio={self.ratio:g} leaves class {spec.names[empty]} none of its "
                f"{available[empty]:,} training examples: {remedy}"
            )
        kept = []
        for label, (rows, size) in enumerate(zip(members, sizes, strict=True)):
            random = random_keys.generator(self.seed, random_keys.LONG_TAIL, label)
            kept.append(rows[torch.randperm(len(rows), generator=random)[:size]])
        return select_rows(train, torch.cat(kept).sort().values)

    def sizes(self, available: list[int]) -> list[int]:
        """Return how many examples each class keeps, given how many are available in each."""
        shares = [self.ratio ** (-label / (len(available) - 1)) for label in range(len(available))]
        # 1e-9, because rounding errors could make a power that is an integer slightly smaller.
        largest = min(floor(count / share + 1e-9) for count, share in zip(available, shares, strict=True))
        return [floor(largest * share + 1e-9) for share in shares]
