"""Wrong labels: of each class an exact number of examples is given another class."""

from abc import abstractmethod
from dataclasses import dataclass
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
class LabelNoise(Corruption):
    """Of each class, round(rate · its examples) are labelled wrongly: always as another class.

    Which ones depends on the seed and the class alone. So all kinds of noise hit the same examples, and those that a
    low rate hits are among those of a higher one.

    Args:
        rate: the share of a class that is labelled wrongly, 0 to 1.
        seed: of the draws.
    """

    rate: float
    seed: int = 0
    group: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        self.must("rate", "a share from 0 to 1", holds=is_number(self.rate, 0, 1))
        self.must_be_seed(self.seed)

    def check(self, facts: DataSpec) -> None:
        """Refuse data without classes."""
        self.must_have_classes(facts)

    def __call__(self, train: TrainingSplit, facts: DataSpec) -> TrainingSplit:
        """Labels of a class are exchanged; of 0/1 labels each column is two classes of its own."""
        if facts.task is Task.MULTICLASS:
            return subset.with_target(train, self._spoilt(train.target, facts, 0))
        columns = [self._spoilt(column.long(), facts, place) for place, column in enumerate(train.target.unbind(1))]
        return subset.with_target(train, torch.stack(columns, dim=1).to(train.target.dtype))

    def _spoilt(self, labels: Tensor, facts: DataSpec, column: int) -> Tensor:
        """Class indices (N,) with some of each class made wrong → (N,). An index that is no class stays."""
        classes = facts.targets if facts.task is Task.MULTICLASS else 2
        spoilt = labels.clone()
        for label in range(classes):
            rows = (labels == label).nonzero().squeeze(1)
            random = random_keys.generator(self.seed, random_keys.LABEL_NOISE, column, label)
            hit = torch.randperm(len(rows), generator=random)[: round(self.rate * len(rows))]
            # Drawn for the whole class, so that an example is given the same wrong label at any rate.
            others = self.others(label, len(rows), classes, facts, random)
            spoilt[rows[hit]] = labels[rows[hit]] if others is None else others[hit]
        return spoilt

    @abstractmethod
    def others(self, label: int, count: int, classes: int, facts: DataSpec, random: torch.Generator) -> Tensor | None:
        """A wrong label for each of the examples of a class → (count,); None if this class is never mistaken."""


@dataclass(frozen=True)
class Symmetric(LabelNoise):
    """Any other class alike.

    The rate is that of wrong labels. Where others draw among all classes, the right one too, a rate of r leaves them
    r · (C - 1)/C wrong.
    """

    kind: ClassVar[str] = "symmetric"

    def others(self, label: int, count: int, classes: int, facts: DataSpec, random: torch.Generator) -> Tensor:  # noqa: ARG002
        """Uniform over the other classes."""
        return (label + torch.randint(1, classes, (count,), generator=random)) % classes


@dataclass(frozen=True)
class PairFlip(LabelNoise):
    """Class y as class y + 1, the last as the first (Han et al. 2018, "Co-teaching")."""

    kind: ClassVar[str] = "pair_flip"

    def check(self, facts: DataSpec) -> None:
        """Refuse data without classes that follow each other."""
        super().check(facts)
        if facts.task is Task.MULTILABEL:
            raise LabError(
                "noise=pair_flip is for classes that exclude each other: several labels take noise=symmetric"
            )

    def others(self, label: int, count: int, classes: int, facts: DataSpec, random: torch.Generator) -> Tensor:  # noqa: ARG002
        """The next class."""
        return torch.full((count,), (label + 1) % classes)


@dataclass(frozen=True)
class Asymmetric(LabelNoise):
    """Classes of CIFAR-10 as those they resemble (Patrini et al. 2017, "Making deep neural networks robust to noise").

    Truck as automobile, bird as airplane, deer as horse, cat and dog as each other; the other five stay, so with all
    ten equally frequent half as many labels are wrong as the rate says.
    """

    kind: ClassVar[str] = "asymmetric"
    MISTAKEN: ClassVar[dict[str, str]] = {
        "truck": "automobile",
        "bird": "airplane",
        "deer": "horse",
        "cat": "dog",
        "dog": "cat",
    }

    def check(self, facts: DataSpec) -> None:
        """Refuse data without these classes."""
        super().check(facts)
        missing = {*self.MISTAKEN, *self.MISTAKEN.values()} - set(facts.class_names)
        if missing or facts.task is not Task.MULTICLASS:
            raise LabError(
                f"noise=asymmetric mistakes classes of CIFAR-10, and these data have no "
                f"{', '.join(sorted(missing)) or 'exclusive classes'}: noise=pair_flip fits classes of any names"
            )

    def others(self, label: int, count: int, classes: int, facts: DataSpec, random: torch.Generator) -> Tensor | None:  # noqa: ARG002
        """The class that it resembles."""
        mistaken = self.MISTAKEN.get(facts.class_names[label])
        return None if mistaken is None else torch.full((count,), facts.class_names.index(mistaken))
