"""Label noise: an exact share of each class is labelled as another class."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from losslab.data import random_keys
from losslab.data.batch import DataSpec
from losslab.data.corruption.base import Corruption, TrainingSplit, is_number, with_target
from losslab.errors import LabError
from losslab.targets import Task


@dataclass(frozen=True)
class LabelNoise(Corruption):
    """Base class: round(rate · n) of the n examples of each class get the label of another class.

    Which examples are chosen depends on the seed and the class only: all kinds of noise choose the same examples, and
    the examples of a lower rate are among those of a higher rate.

    Args:
        rate: share of each class that is labelled wrongly, 0 to 1.
        seed: seed of the draws.
    """

    rate: float
    seed: int = 0
    group: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        self.require("rate", "a share from 0 to 1", holds=is_number(self.rate, 0, 1))
        self.require_seed(self.seed)

    def check(self, spec: DataSpec) -> None:
        self.require_classes(spec)

    def __call__(self, train: TrainingSplit, spec: DataSpec) -> TrainingSplit:
        """Corrupt class indices, or each column of 0/1 labels as two classes."""
        if spec.task is Task.MULTICLASS:
            return with_target(train, self._corrupted(train.target, spec, 0))
        columns = [self._corrupted(labels.long(), spec, column) for column, labels in enumerate(train.target.unbind(1))]
        return with_target(train, torch.stack(columns, dim=1).to(train.target.dtype))

    def _corrupted(self, labels: Tensor, spec: DataSpec, column: int) -> Tensor:
        """Class indices (N,) → (N,) with wrong ones. Indices outside the classes stay."""
        classes = spec.targets if spec.task is Task.MULTICLASS else 2
        corrupted = labels.clone()
        for label in range(classes):
            rows = (labels == label).nonzero().squeeze(1)
            random = random_keys.generator(self.seed, random_keys.LABEL_NOISE, column, label)
            chosen = torch.randperm(len(rows), generator=random)[: round(self.rate * len(rows))]
            # Drawn for the whole class, so that the wrong label of an example does not depend on the rate.
            others = self.others(label, len(rows), classes, spec, random)
            if others is not None:
                corrupted[rows[chosen]] = others[chosen]
        return corrupted

    @abstractmethod
    def others(self, label: int, count: int, classes: int, spec: DataSpec, random: torch.Generator) -> Tensor | None:
        """Draw a wrong label for each of the `count` examples of a class → (count,); None if the class stays clean."""


@dataclass(frozen=True)
class Symmetric(LabelNoise):
    """Wrong labels are uniform over the other classes.

    The rate is that of wrong labels. Where other work draws among all C classes, including the right one, a rate r
    gives r · (C - 1)/C wrong labels.
    """

    kind: ClassVar[str] = "symmetric"

    def others(self, label: int, count: int, classes: int, spec: DataSpec, random: torch.Generator) -> Tensor:  # noqa: ARG002
        return (label + torch.randint(1, classes, (count,), generator=random)) % classes


@dataclass(frozen=True)
class PairFlip(LabelNoise):
    """Class y becomes class y + 1, the last class the first (Han et al. 2018, "Co-teaching")."""

    kind: ClassVar[str] = "pair_flip"

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        if spec.task is Task.MULTILABEL:
            raise LabError(
                "noise=pair_flip is for classes that exclude each other: several labels take noise=symmetric"
            )

    def others(self, label: int, count: int, classes: int, spec: DataSpec, random: torch.Generator) -> Tensor:  # noqa: ARG002
        return torch.full((count,), (label + 1) % classes)


@dataclass(frozen=True)
class Asymmetric(LabelNoise):
    """Similar classes of CIFAR-10 are confused (Patrini et al. 2017, "Making deep neural networks robust to noise").

    Truck becomes automobile, bird airplane, deer horse, cat dog and dog cat. The other five classes stay, so on
    balanced classes the share of wrong labels is rate / 2.
    """

    kind: ClassVar[str] = "asymmetric"
    MISTAKEN: ClassVar[dict[str, str]] = {
        "truck": "automobile",
        "bird": "airplane",
        "deer": "horse",
        "cat": "dog",
        "dog": "cat",
    }

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        missing = {*self.MISTAKEN, *self.MISTAKEN.values()} - set(spec.class_names)
        if missing or spec.task is not Task.MULTICLASS:
            raise LabError(
                f"noise=asymmetric mistakes classes of CIFAR-10, and these data have no "
                f"{', '.join(sorted(missing)) or 'exclusive classes'}: noise=pair_flip fits classes of any names"
            )

    def others(self, label: int, count: int, classes: int, spec: DataSpec, random: torch.Generator) -> Tensor | None:  # noqa: ARG002
        mistaken = self.MISTAKEN.get(spec.class_names[label])
        return None if mistaken is None else torch.full((count,), spec.class_names.index(mistaken))
