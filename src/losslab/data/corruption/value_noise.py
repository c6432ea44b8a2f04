"""Noise on regression targets: outliers, and Gaussian noise whose standard deviation depends on a feature."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from losslab.data import random_keys
from losslab.data.batch import DataSpec, Examples
from losslab.data.corruption.base import Corruption, TrainingSplit, is_number, with_target
from losslab.data.transforms import column_statistics
from losslab.errors import LabError
from losslab.targets import Task


@dataclass(frozen=True)
class ValueNoise(Corruption):
    """Base class of noise that is added to regression targets."""

    group: ClassVar[str] = "noise"

    def check(self, spec: DataSpec) -> None:
        if spec.task is not Task.REGRESSION:
            raise LabError(
                f"noise={self.kind} is for values, and these data have classes: use noise=symmetric or pair_flip, or, "
                f"on CIFAR-10, asymmetric or human"
            )


@dataclass(frozen=True)
class Outliers(ValueNoise):
    """round(rate · N) examples get an exponentially distributed error, by default upwards only.

    Symmetric errors would not change the conditional mean, which squared error estimates. A higher rate gives the same
    outliers as a lower rate, and more. The errors of counts are rounded up, so the targets are still counts.

    Args:
        rate: share of the examples that become outliers, 0 to 1.
        size: mean absolute error of an outlier, in units of the target.
        sides: "one" for errors upwards, "two" for errors up and down with equal probability.
        seed: seed of the random draws.
    """

    rate: float
    size: float = 20.0
    sides: str = "one"
    seed: int = 0
    kind: ClassVar[str] = "outliers"

    def __post_init__(self) -> None:
        self.require("rate", "a share from 0 to 1", holds=is_number(self.rate, 0, 1))
        self.require("size", "a number above 0", holds=is_number(self.size, 0, inf) and 0 < self.size < inf)
        self.require("sides", "one or two", holds=self.sides in {"one", "two"})
        self.require_seed(self.seed)

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        if spec.counts and self.sides == "two":
            raise LabError("noise.sides=two would make counts negative: use noise.sides=one")

    def __call__(self, train: TrainingSplit, spec: DataSpec) -> TrainingSplit:
        random = random_keys.generator(self.seed, random_keys.VALUE_NOISE)
        chosen = torch.randperm(train.size, generator=random)[: round(self.rate * train.size)]
        # Drawn for all examples, so that the error of an example depends neither on the rate nor on `sides`.
        errors = torch.empty(train.target.shape).exponential_(1 / self.size, generator=random)
        errors = errors.ceil() if spec.counts else errors
        if self.sides == "two":
            errors *= 2 * torch.randint(2, errors.shape, generator=random) - 1
        noise = torch.zeros_like(errors)
        noise[chosen] = errors[chosen]
        return with_target(train, train.target + noise)


@dataclass(frozen=True)
class Heteroscedastic(ValueNoise):
    """Gaussian noise with standard deviation scale · exp(growth · z), where z is a standardised feature.

    Args:
        scale: standard deviation of the noise at the feature's mean, in units of the target.
        growth: factor in the exponent; 0 for homoscedastic noise.
        feature: column index of the feature in the flattened inputs.
        seed: seed of the random draws.
    """

    scale: float = 0.5
    growth: float = 1.0
    feature: int = 0
    seed: int = 0
    kind: ClassVar[str] = "heteroscedastic"

    def __post_init__(self) -> None:
        self.require("scale", "a number above 0", holds=is_number(self.scale, 0, inf) and 0 < self.scale < inf)
        self.require("growth", "a number from -10 to 10", holds=is_number(self.growth, -10, 10))
        self.require(
            "feature", "a column index, 0 or more", holds=is_number(self.feature, 0, inf) and self.feature % 1 == 0
        )
        self.require_seed(self.seed)

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        features = torch.Size(spec.input_shape).numel()
        self.require("feature", f"a column index, 0 to {features - 1:,}", holds=self.feature < features)
        if spec.counts:
            raise LabError("noise=heteroscedastic adds Gaussian noise, and these are counts: use noise=outliers")

    def __call__(self, train: TrainingSplit, spec: DataSpec) -> TrainingSplit:  # noqa: ARG002
        if not isinstance(train, Examples):
            raise LabError("noise=heteroscedastic reads the inputs of all examples, so the data must be in memory")
        random = random_keys.generator(self.seed, random_keys.VALUE_NOISE)
        noise = self.deviation(train, train.inputs)[:, None] * torch.randn(train.target.shape, generator=random)
        return with_target(train, train.target + noise)

    def deviation(self, train: Examples, inputs: Tensor) -> Tensor:
        """Return the standard deviation of the noise at `inputs` (N, ...) → (N,), with z standardised as in `train`."""
        column = int(self.feature)
        reference, values = (each.flatten(1)[:, column] for each in (train.inputs, inputs))
        mean, spread, _ = column_statistics(reference)
        z = (values - mean) / spread
        return (self.scale * (self.growth * z).exp()).float()
