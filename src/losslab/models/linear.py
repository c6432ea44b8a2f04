"""The linear model, and the multi-layer perceptron that is several of them."""

from collections.abc import Sequence
from itertools import pairwise
from math import inf, prod

import torch
from torch import nn

from losslab.errors import LabError

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "none": nn.Identity}


def linear(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """torch.nn.Linear, behind torch.nn.Flatten where an input is more than a row of features."""
    layer = nn.Linear(prod(input_shape), outputs)
    return layer if len(input_shape) == 1 else nn.Sequential(nn.Flatten(), layer)


def mlp(
    input_shape: tuple[int, ...],
    outputs: int,
    hidden: Sequence[int] = (64, 64),
    activation: str = "relu",
    gain: float = 1.0,
) -> nn.Sequential:
    """A multi-layer perceptron: Linear and activation for each hidden width, then a Linear to the outputs.

    Args:
        input_shape: of one example.
        outputs: of the network.
        hidden: widths of the hidden layers.
        activation: after each of them.
        gain: of the last layer: its initial weights and biases are this many times PyTorch's usual ones. A classifier
            with a large gain is sure of its answers, and mostly wrong, before it has learnt anything.

    Raises:
        LabError: a width below 1, an unknown activation, or a gain that is not above 0.
    """
    if activation not in _ACTIVATIONS or any(width < 1 for width in hidden) or not 0 < gain < inf:
        raise LabError(
            f"mlp needs hidden widths of 1 or more, an activation of {', '.join(_ACTIVATIONS)} and a gain above 0: "
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
