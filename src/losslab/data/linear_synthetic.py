"""A linear law with noise, on which the truth is known."""

import torch

from losslab.data import keys
from losslab.data.batch import Examples, Facts
from losslab.data.module import MemoryDataModule
from losslab.errors import LabError
from losslab.targets import Kind, Task


class LinearSynthetic(MemoryDataModule):
    """y = w·x + b + noise, with x and w standard normal.

    With noise=outliers or noise=heteroscedastic the metrics tell which loss found the law in spite of it.

    Args:
        n: training examples; validation and test have as many each.
        features: of each example.
        noise: standard deviation of the Gaussian noise on y.
        batch_size: examples a training batch; None for all.
        eval_batch_size: examples a validation or test batch; None for all.
        data_seed: of the law and the points.
        seed: of the order of the batches.
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
            message = (
                f"linear_synthetic needs n ≥ 1, features ≥ 1 and noise ≥ 0: got n={n}, features={features}, "
                f"noise={noise}"
            )
            raise LabError(message)
        self.n, self.noise, self.data_seed = n, noise, data_seed
        self.facts = Facts(Task.REGRESSION, Kind.VALUES, input_shape=(features,), targets=1)

    def load(self) -> dict[str, Examples]:
        """Draw the law and the three splits."""
        random = keys.generator(self.data_seed, keys.SYNTHESIS)
        features = self.facts.input_shape[0]
        weight, bias = torch.randn(features, 1, generator=random), torch.randn(1, generator=random)
        splits = {}
        for name in ("train", "val", "test"):
            x = torch.randn(self.n, features, generator=random)
            y = x @ weight + bias + self.noise * torch.randn(self.n, 1, generator=random)
            splits[name] = Examples.of(x, y)
        return splits
