"""The linear model and the multi-layer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from math import inf, prod

import torch
from torch import nn

from losslab.errors import LabError

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "none": nn.Identity}


def linear(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Create a torch.nn.Linear, after a torch.nn.Flatten if an input has more than one dimension."""
    layer = nn.Linear(prod(input_shape), outputs)
    return layer if len(input_shape) == 1 else nn.Sequential(nn.Flatten(), layer)


def mlp(
    input_shape: tuple[int, ...],
    outputs: int,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    gain: float = 1.0,
) -> nn.Sequential:
    """A multi-layer perceptron: a linear layer and an activation for each hidden width, then a linear layer.

    `activation` is relu, gelu, tanh, sigmoid or none. `gain` > 0 multiplies the initial weights and biases of the last
    layer. With a large gain, an untrained classifier is confident and mostly wrong.
    """
    if activation not in _ACTIVATIONS or any(width < 1 for width in hidden) or not 0 < gain < inf:
        raise LabError(
            f"mlp needs hidden widths of 1 or more, an activation ({', '.join(_ACTIVATIONS)}) and a gain above 0: "
            f"got hidden={list(hidden)}, activation={activation}, gain={gain}"
        )
    layers: list[nn.Module] = [nn.Flatten()]
    widths = [prod(input_shape), *hidden]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), _ACTIVATIONS[activation]()]
    last = nn.Linear(widths[-1], outputs)
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(gain)
    return nn.Sequential(*layers, last)
