"""The gradient that an example gives its own logit, from right to confidently wrong."""

from collections.abc import Callable

import torch
from torch import Tensor

from losslab.losses import BCE, Brier, CrossEntropy, RescaledMSE

MARGINS = (0.0, -2.0, -5.0, -10.0)
CLASSES = 10


def sigmoid_squared(outputs: Tensor) -> Tensor:
    """(σ(z) - 1)² of one logit of a yes (N, 1) → (N,)."""
    return (outputs.sigmoid() - 1).square().squeeze(1)


def slopes() -> dict[str, list[float]]:
    """∂loss/∂z at each margin, of the right class's logit among ten, or of the one logit of a yes."""
    yes, first = torch.ones(len(MARGINS), 1).double(), torch.zeros(len(MARGINS), dtype=torch.int64)
    cross_entropy, brier, squared, bce = CrossEntropy(), Brier(), RescaledMSE(), BCE()
    return {
        "cross_entropy (softmax): p − y": _slope(lambda z: cross_entropy.per_example(z, first), CLASSES),
        "squared error on the softmax (brier)": _slope(lambda z: brier.per_example(z, first), CLASSES),
        "squared error on the logits (rescaled_mse)": _slope(lambda z: squared.per_example(z, first), CLASSES),
        "bce (sigmoid): p − y": _slope(lambda z: bce.per_example(z, yes), 1),
        "squared error on the sigmoid": _slope(sigmoid_squared, 1),
    }


def _slope(loss: Callable[[Tensor], Tensor], columns: int) -> list[float]:
    place = torch.tensor(MARGINS, dtype=torch.float64, requires_grad=True)
    rest = torch.zeros(len(MARGINS), columns - 1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(loss(torch.cat([place[:, None], rest], dim=1)).sum(), place)
    return gradient.tolist()
