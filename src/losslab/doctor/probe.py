"""Observing a network without changing it: its layers, its outputs under other weights, and its state."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# The first scale detects most cases. Outputs of one sign occur by chance in every second draw, but not in all 16.
_SCALES = (10.0, 1.0, 3.0, 30.0) * 4
_ROWS = 8


def random_reweightings(network: nn.Module, inputs: Any) -> Iterator[Tensor]:
    """Yield the outputs for random changes of the weights, at several scales.

    Outputs that the architecture does not bound leave any range at one of the scales. Without weights, the inputs are
    changed instead.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = inputs[:_ROWS] if isinstance(inputs, Tensor) else inputs
    own = {name: p.detach() for name, p in network.named_parameters()}
    for scale in _SCALES:
        drawn = {name: p + scale * _size(p) * _normal(p, generator) for name, p in own.items() if p.is_floating_point()}
        with torch.no_grad():
            if not drawn:
                inputs = inputs + scale * inputs.std() * _normal(inputs, generator)
            yield torch.func.functional_call(network, drawn, (inputs,), strict=False)


def _size(parameter: Tensor) -> Tensor:
    """Return the root mean square of a parameter, but at least that of a usual initialisation: 1 / √fan_in."""
    fan_in = parameter[0].numel() if parameter.ndim > 1 and len(parameter) else 4
    return parameter.square().mean().sqrt().clamp(min=fan_in**-0.5)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)


_SQUASHING = (
    nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Tanh, nn.Hardtanh, nn.ReLU,
    nn.ReLU6, nn.Softplus, nn.Softsign,
)  # fmt: skip
"""Layers with a restricted range of outputs."""


@dataclass
class Layers:
    """The first layer with weights and its input, and the output of each squashing layer, by name."""

    first: tuple[str, nn.Module, Tensor] | None = None
    squashed: dict[str, tuple[nn.Module, Tensor]] = field(default_factory=dict)

    def last(self, outputs: Tensor) -> str | None:
        """Return the squashing layer at the end of the network, as in "Softmax (layer 3)", or None."""
        for name, (module, output) in self.squashed.items():
            if output.data_ptr() == outputs.data_ptr():  # also through a squeeze or a flatten
                return f"{type(module).__name__} (layer {name})" if name else type(module).__name__
        return None

    def record_input(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Record the input of the first layer with weights: a forward pre-hook."""
        if self.first is None and inputs and isinstance(inputs[0], Tensor):
            self.first = name, module, inputs[0].detach()

    def record_output(self, name: str, module: nn.Module, _: Any, output: Any) -> None:
        """Record the output of a squashing layer: a forward hook."""
        if isinstance(output, Tensor):
            self.squashed[name] = module, output.detach()


@contextmanager
def record_layers(network: nn.Module) -> Iterator[Layers]:
    """Record inputs and outputs of layers of a network."""
    layers = Layers()
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if list(module.children()):
                continue
            if list(module.parameters()):
                hooks.enter_context(module.register_forward_pre_hook(partial(layers.record_input, name)))
            if isinstance(module, _SQUASHING):
                hooks.enter_context(module.register_forward_hook(partial(layers.record_output, name)))
        yield layers


@contextmanager
def preserve_state(*parts: Any) -> Iterator[None]:
    """Restore at exit the state that calling these modules may change.

    This includes all random generators (of torch on each device, of Python, and of NumPy if it is loaded), and the
    buffers, mode and attributes of each module. Gradients are not restored: compute them with torch.autograd.grad.
    Parameters are not restored either: a network whose `forward` overwrites them is changed.
    """
    modules = [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]
    numpy = sys.modules.get("numpy")
    with ExitStack() as stack:
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        stack.enter_context(torch.random.fork_rng(devices))
        if torch.backends.mps.is_available():
            stack.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        stack.callback(random.setstate, random.getstate())
        if numpy is not None:
            stack.callback(numpy.random.set_state, numpy.random.get_state())
        for module in modules:
            stack.callback(_module_restorer(module))
        yield


def _module_restorer(module: nn.Module) -> Callable[[], None]:
    attributes = dict(vars(module))
    dicts = [(value, dict(value)) for value in attributes.values() if isinstance(value, dict)]
    lists = [(value, list(value)) for value in attributes.values() if isinstance(value, list)]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers(recurse=False)]

    def restore() -> None:
        vars(module).clear()
        vars(module).update(attributes)
        for mapping, items in dicts:
            mapping.clear()
            mapping.update(items)
        for values, elements in lists:
            values[:] = elements
        with torch.no_grad():
            for buffer, content in buffers:
                buffer.copy_(content)

    return restore
