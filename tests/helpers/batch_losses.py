"""Criteria for tests, which configurations name: one scores a batch as a whole, one counts its calls."""

import torch.nn.functional as F
from torch import Tensor, nn


class Dice(nn.Module):
    """The Dice loss of the whole batch, averaged over the classes."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        p = outputs.softmax(1)
        hot = F.one_hot(target, p.shape[1]).to(p)
        return 1 - ((2 * (p * hot).sum(0) + 1) / (p.sum(0) + hot.sum(0) + 1)).mean()


class Warming(nn.Module):
    """Rises to its full weight in its first hundred calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        return F.cross_entropy(outputs, target) * min(1.0, self.calls / 100)
