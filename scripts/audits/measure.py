"""Helpers to measure findings: values and gradients of a loss, and exact references in float64."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Criterion = Callable[[Tensor], Tensor]


def value_and_gradient(loss: Criterion, outputs: Any, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Compute the loss at `outputs`, and the gradient of its sum by autograd, with the shape of `outputs`."""
    inputs = torch.as_tensor(outputs, dtype=dtype).clone().requires_grad_()
    value = loss(inputs)
    (gradient,) = torch.autograd.grad(value.sum(), inputs)
    return value.detach(), gradient


def slope(loss: Criterion, outputs: Any, step: float = 1e-6) -> Tensor:
    """Compute the gradient by central differences in float64, with the shape of `outputs`."""
    point = torch.as_tensor(outputs, dtype=torch.float64)
    steps = step * torch.eye(point.numel(), dtype=torch.float64).view(-1, *point.shape)
    differences = [(loss(point + one) - loss(point - one)).sum() / (2 * step) for one in steps]
    return torch.stack(differences).view(point.shape)


def margins(values: Sequence[float], classes: int = 2) -> list[list[float]]:
    """Make logits (N, C) in which the first class leads all others by these margins."""
    return [[value] + [0.0] * (classes - 1) for value in values]


def focal(margin: float, gamma: float) -> float:
    """Compute the exact focal loss -(1 - p)^γ log p of an example with p = σ(margin)."""
    log_p, log_rest = -math.log1p(math.exp(-margin)), -math.log1p(math.exp(margin))
    return -math.exp(gamma * log_rest) * log_p


def say(number: float | Tensor) -> str:
    """Format a number with four significant digits, or the elements of a tensor separated by commas."""
    if isinstance(number, Tensor) and number.ndim:
        return ", ".join(say(element) for element in number.flatten())
    return f"{float(number):.4g}"


def precision(dtype: torch.dtype) -> str:
    """Name of a dtype without "torch."."""
    return str(dtype).removeprefix("torch.")
