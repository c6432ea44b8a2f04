"""What is noted of a network's layers while it computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

SQUASHING = (
    nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Tanh, nn.Hardtanh, nn.ReLU,
    nn.ReLU6, nn.Softplus, nn.Softsign,
)  # fmt: skip
"""Layers that cannot give every number."""


@dataclass
class Layers:
    """The first layer with weights and what it was given, and what each squashing layer gave, by name."""

    first: tuple[str, nn.Module, Tensor] | None = None
    squashed: dict[str, tuple[nn.Module, Tensor]] = field(default_factory=dict)

    def last(self, outputs: Tensor) -> str | None:
        """The squashing layer whose outputs are the network's, as in "Softmax (layer 3)"; None if there is none."""
        for name, (module, given) in self.squashed.items():
            if given.data_ptr() == outputs.data_ptr():  # also through a squeeze or a flatten
                return f"{type(module).__name__} (layer {name})" if name else type(module).__name__
        return None

    def enter(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Note that a layer with weights begins; a forward pre-hook."""
        if self.first is None and inputs and isinstance(inputs[0], Tensor):
            self.first = name, module, inputs[0].detach()

    def leave(self, name: str, module: nn.Module, _: Any, output: Any) -> None:
        """Note what a squashing layer gave; a forward hook."""
        if isinstance(output, Tensor):
            self.squashed[name] = module, output.detach()


@contextmanager
def watched(network: nn.Module) -> Iterator[Layers]:
    """Note what passes the layers of a network."""
    layers = Layers()
    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    hooks = [
        module.register_forward_pre_hook(partial(layers.enter, name))
        for name, module in leaves
        if any(True for _ in module.parameters())
    ]
    hooks += [
        module.register_forward_hook(partial(layers.leave, name))
        for name, module in leaves
        if isinstance(module, SQUASHING)
    ]
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()
