"""Data modules for tests, which configurations name: multilabel data, and images with noisy targets."""

import torch

from losslab.data.batch import DataSpec, Examples
from losslab.data.module import ExperimentDataModule
from losslab.targets import Kind, Task


class ThreeLabels(ExperimentDataModule):
    """Three labels. Each says whether a feature is above a threshold; the third is always 0."""

    spec = DataSpec(Task.MULTILABEL, Kind.BINARY, (4,), 3, class_names=("low", "middle", "never"))

    def __init__(self, batch_size: int | None = None, eval_batch_size: int | None = None, seed: int = 0) -> None:
        super().__init__(batch_size, eval_batch_size, seed)

    def load(self) -> dict[str, Examples]:
        inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        labels = torch.stack([inputs[:, 0] > -0.5, inputs[:, 1] > 0, inputs[:, 2] > 100], dim=1).float()
        return {split: Examples.of(inputs, labels) for split in ("train", "val", "test")}


class NoisyImages(ExperimentDataModule):
    """Float images with one channel and three classes. Every seventh target is wrong. `only` keeps one class."""

    spec = DataSpec(Task.MULTICLASS, Kind.INDEX, (1, 8, 8), 3, class_names=("dark", "grey", "bright"))

    def __init__(
        self,
        batch_size: int | None = None,
        eval_batch_size: int | None = None,
        seed: int = 0,
        only: int | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        self.only = only

    def load(self) -> dict[str, Examples]:
        random = torch.Generator().manual_seed(0)
        truth = torch.arange(63) % 3 if self.only is None else torch.full((63,), self.only)
        images = truth[:, None, None, None] + 0.5 * torch.randn(63, 1, 8, 8, generator=random)
        target = truth.clone()
        target[::7] = (target[::7] + 1) % 3
        return {split: Examples.of(images, target, truth) for split in ("train", "val", "test")}
