"""What findings measure with: values, gradients, and exact references in float64."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Criterion = Callable[[Tensor], Tensor]


def value_and_gradient(loss: Criterion, outputs: Any, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """The loss at these outputs, and the gradient of its sum by autograd, of the outputs' shape."""
    given = torch.as_tensor(outputs, dtype=dtype).clone().requires_grad_()
    value = loss(given)
    (gradient,) = torch.autograd.grad(value.sum(), given)
    return value.detach(), gradient


def slope(loss: Criterion, outputs: Any, step: float = 1e-6) -> Tensor:
    """The gradient of the value by central differences in float64, of the outputs' shape."""
    point = torch.as_tensor(outputs, dtype=torch.float64)
    steps = step * torch.eye(point.numel(), dtype=torch.float64).view(-1, *point.shape)
    differences = [(loss(point + one) - loss(point - one)).sum() / (2 * step) for one in steps]
    return torch.stack(differences).view(point.shape)


def margins(values: Sequence[float], classes: int = 2) -> list[list[float]]:
    """Logits (N, C) whose first class leads the others by these margins."""
    return [[value] + [0.0] * (classes - 1) for value in values]


def focal(margin: float, gamma: float) -> float:
    """The exact focal loss of an example with p = σ(margin): -(1 - p)^γ log p."""
    log_p, log_rest = -math.log1p(math.exp(-margin)), -math.log1p(math.exp(margin))
    return -math.exp(gamma * log_rest) * log_p


def say(number: float | Tensor) -> str:
    """A number with four digits; an array's elements, with commas."""
    if isinstance(number, Tensor) and number.ndim:
        return ", ".join(say(element) for element in number.flatten())
    return f"{float(number):.4g}"


def precision(dtype: torch.dtype) -> str:
    """The name of a dtype, without its module."""
    return str(dtype).removeprefix("torch.")
