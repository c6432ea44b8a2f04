"""Random directions in the space of a network's weights, in which networks can be compared."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


def filter_normalised(network: nn.Module, random: torch.Generator, fixed: Collection[str] = ()) -> Weights:
    """A random direction whose every filter is as long as the network's own filter in that place.

    A filter is what makes one output of a layer: a row of a linear layer, an output channel of a convolution. To move
    by 1 along the direction is to move each filter by its own length, so a network whose weights are twice as large
    and mean the same is moved twice as far. Biases, the scales and shifts of normalisation, and what is not learnt do
    not move. Li et al., "Visualizing the loss landscape of neural nets", 2018, arXiv 1712.09913, section 4.

    Args:
        network: whose weights are (outputs, ...).
        random: a generator on the CPU: the same directions wherever the network is.
        fixed: the names of weights that were not learnt.
    """
    direction = {}
    for name, weight in network.named_parameters():
        drawn = torch.randn(weight.shape, generator=random, dtype=torch.float64)
        if weight.ndim < 2 or name in fixed:
            direction[name] = torch.zeros_like(weight)
            continue
        own, given = (values.flatten(1).norm(dim=1) for values in (weight.detach().double().cpu(), drawn))
        scale = (own / given).view(-1, *[1] * (weight.ndim - 1))
        direction[name] = (drawn * scale).to(weight)
    return direction
