"""The gradient of each layer, as one number."""

import torch
from torch import Tensor, nn

from losslab.dynamics.record import Numbers


def layers(network: nn.Module) -> list[str]:
    """The layers that have parameters of their own, in the order of the network."""
    return list(dict.fromkeys(_layer(network, name) for name, _ in network.named_parameters()))


def titles(network: nn.Module) -> list[str]:
    """The layers with their kinds, such as "0 Conv2d"."""
    kinds = {name: type(layer).__name__ for name, layer in network.named_modules()}
    return [f"{name} {kinds[name]}" if name in kinds else name for name in layers(network)]


def by_layer(network: nn.Module, gradients: dict[str, Tensor]) -> Numbers:
    """The root mean square of each layer's gradient → (G,), NaN where a layer does not learn."""
    held: dict[str, list[Tensor]] = {name: [] for name in layers(network)}
    for name, gradient in gradients.items():
        held[_layer(network, name)].append(gradient.flatten().float())
    nothing = torch.full((), torch.nan, device=next(iter(gradients.values())).device)
    squares = [torch.cat(parts).square().mean() if parts else nothing for parts in held.values()]
    found: Numbers = torch.stack(squares).sqrt().cpu().numpy()
    return found


def _layer(network: nn.Module, parameter: str) -> str:
    return parameter.rpartition(".")[0] or type(network).__name__.lower()
