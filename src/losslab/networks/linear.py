"""The linear model, and the multi-layer perceptron that is several of them."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from losslab.errors import LabError

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "none": nn.Identity}


def linear(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """torch.nn.Linear, behind torch.nn.Flatten where an input is more than a row of features."""
    layer = nn.Linear(prod(input_shape), outputs)
    return layer if len(input_shape) == 1 else nn.Sequential(nn.Flatten(), layer)


def mlp(
    input_shape: tuple[int, ...], outputs: int, hidden: Sequence[int] = (64, 64), activation: str = "relu"
) -> nn.Sequential:
    """A multi-layer perceptron: Linear and activation for each hidden width, then a Linear to the outputs.

    Raises:
        LabError: a width below 1, or an unknown activation.
    """
    if activation not in _ACTIVATIONS or any(width < 1 for width in hidden):
        message = (
            f"mlp needs hidden widths of 1 or more and an activation of {', '.join(_ACTIVATIONS)}: "
            f"got hidden={list(hidden)}, activation={activation}"
        )
        raise LabError(message)
    layers: list[nn.Module] = [nn.Flatten()]
    widths = [prod(input_shape), *hidden]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
