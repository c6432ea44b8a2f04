"""What is wrong with values: outliers, and noise whose size depends on the inputs."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from losslab.data import random_keys
from losslab.data.batch import DataSpec, Examples
from losslab.data.corruption import subset
from losslab.data.corruption.base import Corruption, is_number
from losslab.data.corruption.subset import TrainingSplit
from losslab.errors import LabError
from losslab.targets import Task


@dataclass(frozen=True)
class ValueNoise(Corruption):
    """Something is added to values."""

    group: ClassVar[str] = "noise"

    def check(self, facts: DataSpec) -> None:
        """Refuse data in classes."""
        if facts.task is not Task.REGRESSION:
            raise LabError(
                f"noise={self.kind} is for values, and these data have classes: use noise=symmetric or pair_flip, and "
                f"on CIFAR-10 also asymmetric or human"
            )

    def __call__(self, train: TrainingSplit, facts: DataSpec) -> TrainingSplit:
        """Add it to the targets (N, D)."""
        return subset.with_target(train, train.target + self.drawn(train, facts).to(train.target.dtype))

    def drawn(self, train: TrainingSplit, facts: DataSpec) -> Tensor:
        """What is added, (N, D)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Outliers(ValueNoise):
    """Of all examples, round(rate · N) are thrown off by an exponentially distributed length.

    One-sided they lie above: errors on both sides alike leave the mean, and so what squared error looks for, where it
    was. The outliers of a lower rate are among those of a higher one. Counts become larger counts.

    Args:
        rate: the share of the examples that become outliers, 0 to 1.
        size: how far an outlier is thrown on average, in units of the target.
        sides: "one" for upwards, "two" for up and down alike.
        seed: of the draws.
    """

    rate: float
    size: float = 20.0
    sides: str = "one"
    seed: int = 0
    kind: ClassVar[str] = "outliers"

    def __post_init__(self) -> None:
        self.must("rate", "a share from 0 to 1", holds=is_number(self.rate, 0, 1))
        self.must("size", "a number above 0", holds=is_number(self.size, 0, inf) and 0 < self.size < inf)
        self.must("sides", "one or two", holds=self.sides in {"one", "two"})
        self.must_be_seed(self.seed)

    def check(self, facts: DataSpec) -> None:
        """Refuse data in classes, and counts that would become negative."""
        super().check(facts)
        if facts.counts and self.sides == "two":
            raise LabError("noise.sides=two would make counts negative: use noise.sides=one")

    def drawn(self, train: TrainingSplit, facts: DataSpec) -> Tensor:
        """Mostly 0."""
        random = random_keys.generator(self.seed, random_keys.VALUE_NOISE)
        thrown = torch.randperm(train.size, generator=random)[: round(self.rate * train.size)]
        # Drawn for all examples, so that one is thrown as far at any rate, and to either side.
        lengths = torch.empty(train.target.shape).exponential_(1 / self.size, generator=random)
        lengths = lengths.ceil() if facts.counts else lengths
        if self.sides == "two":
            lengths *= 2 * torch.randint(2, lengths.shape, generator=random) - 1
        added = torch.zeros_like(lengths)
        added[thrown] = lengths[thrown]
        return added


@dataclass(frozen=True)
class Heteroscedastic(ValueNoise):
    """Gaussian noise with the standard deviation scale · exp(growth · z), where z is a standardised feature.

    Args:
        scale: standard deviation of the noise where the feature has its mean, in units of the target.
        growth: by how much its logarithm grows for each standard deviation of the feature; 0 for the same everywhere.
        feature: the column of the inputs (flattened) that decides, from 0.
        seed: of the draws.
    """

    scale: float = 0.5
    growth: float = 1.0
    feature: int = 0
    seed: int = 0
    kind: ClassVar[str] = "heteroscedastic"

    def __post_init__(self) -> None:
        self.must("scale", "a number above 0", holds=is_number(self.scale, 0, inf) and 0 < self.scale < inf)
        self.must("growth", "a number from -10 to 10", holds=is_number(self.growth, -10, 10))
        self.must("feature", "a column, 0 or more", holds=is_number(self.feature, 0, inf) and self.feature % 1 == 0)
        self.must_be_seed(self.seed)

    def check(self, facts: DataSpec) -> None:
        """Refuse data in classes, counts, and a feature that there is not."""
        super().check(facts)
        features = torch.Size(facts.input_shape).numel()
        self.must("feature", f"a column, 0 to {features - 1:,}", holds=self.feature < features)
        if facts.counts:
            raise LabError("noise=heteroscedastic adds Gaussian noise, and these are counts: use noise=outliers")

    def drawn(self, train: TrainingSplit, facts: DataSpec) -> Tensor:  # noqa: ARG002
        """σ(x) times standard normal draws."""
        if not isinstance(train, Examples):
            raise LabError(
                "noise=heteroscedastic looks at the inputs of all examples: it needs data that are in memory"
            )
        random = random_keys.generator(self.seed, random_keys.VALUE_NOISE)
        return self.deviation(train, train.inputs)[:, None] * torch.randn(train.target.shape, generator=random)

    def deviation(self, train: Examples, inputs: Tensor) -> Tensor:
        """The standard deviation of the noise at these inputs (N, ...) → (N,).

        Args:
            train: the split by which the feature is standardised.
            inputs: anywhere.
        """
        known, column = (values.flatten(1)[:, int(self.feature)].double() for values in (train.inputs, inputs))
        spread = known.std(correction=0)
        z = (column - known.mean()) / torch.where(spread > 0, spread, 1.0)
        return (self.scale * (self.growth * z).exp()).float()
