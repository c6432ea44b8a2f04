"""A linear law with noise and outliers, on which losses differ and the truth is known."""

import torch

from losslab.data import keys
from losslab.data.batch import Examples, Facts
from losslab.data.module import MemoryDataModule
from losslab.errors import LabError
from losslab.targets import Kind, Task


class LinearSynthetic(MemoryDataModule):
    """y = w·x + b + noise, with x and w standard normal; some training targets are thrown far above the line.

    Only training targets hold outliers. The truth, validation and test do not, so the metrics tell which loss found
    the law in spite of them.

    Args:
        n: training examples; validation and test have as many each.
        features: of each example.
        noise: standard deviation of the Gaussian noise on y.
        outliers: fraction of the training targets that become outliers, 0 to 1.
        outlier_size: how far an outlier lies above the line on average, in units of y.
        batch_size: examples a training batch; None for all.
        eval_batch_size: examples a validation or test batch; None for all.
        data_seed: of the law, the points and the outliers.
        seed: of the order of the batches.
    """

    def __init__(
        self,
        n: int = 320,
        features: int = 10,
        noise: float = 0.1,
        outliers: float = 0.0,
        outlier_size: float = 20.0,
        batch_size: int | None = 32,
        eval_batch_size: int | None = None,
        data_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        if n < 1 or features < 1 or noise < 0 or not 0 <= outliers <= 1:
            message = (
                f"linear_synthetic needs n ≥ 1, features ≥ 1, noise ≥ 0 and outliers in 0..1: "
                f"got n={n}, features={features}, noise={noise}, outliers={outliers}"
            )
            raise LabError(message)
        self.n, self.noise, self.outliers, self.outlier_size = n, noise, outliers, outlier_size
        self.data_seed = data_seed
        self.facts = Facts(Task.REGRESSION, Kind.VALUES, input_shape=(features,), targets=1)

    def load(self) -> dict[str, Examples]:
        """Draw the law, the three splits and, in the first, the outliers."""
        random = keys.generator(self.data_seed, keys.SYNTHESIS)
        features = self.facts.input_shape[0]
        weight, bias = torch.randn(features, 1, generator=random), torch.randn(1, generator=random)
        splits = {}
        for name in ("train", "val", "test"):
            x = torch.randn(self.n, features, generator=random)
            y = x @ weight + bias + self.noise * torch.randn(self.n, 1, generator=random)
            splits[name] = Examples.of(x, y)
        train = splits["train"]
        thrown = torch.randperm(self.n, generator=random)[: round(self.outliers * self.n)]
        target = train.target.clone()
        # Exponential and one-sided: a symmetric contamination would leave the mean, and so MSE, where it was.
        target[thrown] += torch.empty(len(thrown), 1).exponential_(1 / self.outlier_size, generator=random)
        splits["train"] = train._replace(target=target)
        return splits
