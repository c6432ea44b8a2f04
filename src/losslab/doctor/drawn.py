"""The same network with other weights: what holds for any weights lies in its architecture."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_SPREADS = (10.0, 1.0, 3.0, 30.0) * 4
"""First the one that tells most often. By chance all outputs have one sign once in two draws, and never in sixteen."""
_ROWS = 8


def with_drawn_weights(network: nn.Module, inputs: Any) -> Iterator[Tensor]:
    """Outputs with weights drawn around the network's own, at several spreads.

    A number that is in no way bounded leaves any range at one of them.
    Where there are no weights, the inputs are drawn.
    """
    random = torch.Generator().manual_seed(0)
    inputs = inputs[:_ROWS] if isinstance(inputs, Tensor) else inputs
    own = {name: p.detach() for name, p in network.named_parameters()}
    for spread in _SPREADS:
        drawn = {name: p + spread * _scale(p) * _normal(p, random) for name, p in own.items() if p.is_floating_point()}
        with torch.no_grad():
            if not drawn:
                inputs = inputs + spread * inputs.std() * _normal(inputs, random)
            yield torch.func.functional_call(network, drawn, (inputs,), strict=False)


def _scale(parameter: Tensor) -> Tensor:
    """The size of a parameter, or, where it is (nearly) 0, that of a usual initialisation: 1 / √fan_in."""
    fan_in = parameter[0].numel() if parameter.ndim > 1 and len(parameter) else 4
    return parameter.square().mean().sqrt().clamp(min=fan_in**-0.5)


def _normal(like: Tensor, random: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=random).to(like)
