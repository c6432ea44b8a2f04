"""Synthetic regression data: three points on a line, a noisy linear function, and Poisson counts."""

import torch

from losslab.data import random_keys
from losslab.data.batch import SPLITS, DataSpec, Examples
from losslab.data.module import ExperimentDataModule
from losslab.errors import LabError
from losslab.targets import Kind, Task


class Line(ExperimentDataModule):
    """x = [1, 2, 3], y = [2, 4, 6]: y = 2x, without noise.

    All three splits contain the same three points: this data set shows how a loss is minimised, not how a network
    generalises.
    """

    spec = DataSpec(Task.REGRESSION, Kind.VALUES, input_shape=(1,), targets=1)

    def load(self) -> dict[str, Examples]:
        x = torch.tensor([[1.0], [2.0], [3.0]])
        return dict.fromkeys(SPLITS, Examples.of(x, 2 * x))


class LinearSynthetic(ExperimentDataModule):
    """y = w·x + b + noise, with x and w standard normal.

    With noise=outliers or noise=heteroscedastic, metrics are computed from targets without this additional noise.

    Args:
        n: number of examples in each split.
        features: number of features of an example.
        noise: standard deviation of the Gaussian noise on y.
        data_seed: seed of w, b and the examples.
        batch_size, eval_batch_size, seed: see `ExperimentDataModule`.
    """

    def __init__(
        self,
        n: int = 320,
        features: int = 10,
        noise: float = 0.1,
        batch_size: int | None = 32,
        eval_batch_size: int | None = None,
        data_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        if n < 1 or features < 1 or noise < 0:
            raise LabError(f"linear_synthetic needs n ≥ 1, features ≥ 1, noise ≥ 0: got {n}, {features}, {noise}")
        self.n, self.noise, self.data_seed = n, noise, data_seed
        self.spec = DataSpec(Task.REGRESSION, Kind.VALUES, input_shape=(features,), targets=1)

    def load(self) -> dict[str, Examples]:
        random = random_keys.generator(self.data_seed, random_keys.SYNTHESIS)
        features = self.spec.input_shape[0]
        weight, bias = torch.randn(features, 1, generator=random), torch.randn(1, generator=random)
        splits = {}
        for name in SPLITS:
            x = torch.randn(self.n, features, generator=random)
            splits[name] = Examples.of(x, x @ weight + bias + self.noise * torch.randn(self.n, 1, generator=random))
        return splits


class Counts(ExperimentDataModule):
    """y ~ Poisson(exp(w·x + log rate)), with x standard normal and w of length `effect`.

    The truth is the drawn count. So even the best predictions, the rates themselves, have a mean squared error of the
    mean rate, rate · exp(effect²/2).

    Args:
        n: number of examples in each split.
        features: number of features of an example.
        rate: expected count at x = 0.
        effect: standard deviation of the log rate over the examples.
        data_seed: seed of w and the examples.
        batch_size, eval_batch_size, seed: see `ExperimentDataModule`.
    """

    def __init__(
        self,
        n: int = 320,
        features: int = 10,
        rate: float = 3.0,
        effect: float = 0.5,
        batch_size: int | None = 32,
        eval_batch_size: int | None = None,
        data_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        if n < 1 or features < 1 or not 0 < rate < 1e6 or not 0 <= effect <= 3:
            raise LabError(
                f"counts needs n ≥ 1, features ≥ 1, 0 < rate < 1e6 and 0 ≤ effect ≤ 3: got n={n}, features={features}, "
                f"rate={rate}, effect={effect}"
            )
        self.n, self.rate, self.effect, self.data_seed = n, rate, effect, data_seed
        self.spec = DataSpec(Task.REGRESSION, Kind.VALUES, input_shape=(features,), targets=1, counts=True)

    def load(self) -> dict[str, Examples]:
        random = random_keys.generator(self.data_seed, random_keys.SYNTHESIS)
        weight = torch.randn(self.spec.input_shape[0], 1, generator=random)
        weight *= self.effect / weight.norm()
        splits = {}
        for name in SPLITS:
            x = torch.randn(self.n, len(weight), generator=random)
            splits[name] = Examples.of(x, torch.poisson(self.rate * (x @ weight).exp(), generator=random))
        return splits
