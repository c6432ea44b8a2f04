"""Observes a network: its layers, and its outputs with other weights. `preserve_state` undoes changes of its state."""

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from losslab.losses.adapter.state import State

_SCALES = (10.0, 1.0, 3.0, 30.0) * 4
"""Sizes of the changes, relative to the weights. Outputs may have one sign by chance, but not in all 16 draws."""
_ROWS = 8


def outputs_with_random_weights(network: nn.Module, inputs: Any) -> Iterator[Tensor]:
    """Yield the outputs of a network with randomly changed weights, at several scales of change.

    Outputs that the architecture does not bound leave any range at one of the scales. If the network has no weights,
    the inputs are changed instead.
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
    """Return the root mean square of a parameter, but at least 1 / √fan_in, a usual initialisation (a bias: 1/2)."""
    fan_in = parameter[0].numel() if parameter.ndim > 1 and len(parameter) else 4
    return parameter.square().mean().sqrt().clamp(min=fan_in**-0.5)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)


_BOUNDED = (
    nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Tanh, nn.Hardtanh, nn.ReLU,
    nn.ReLU6, nn.Softplus, nn.Softsign,
)  # fmt: skip
"""Layers whose outputs are bounded on at least one side."""


@dataclass
class LayerRecords:
    """Records of a forward pass: the first layer with weights, and all layers with bounded outputs."""

    first: tuple[nn.Module, Tensor] | None = None
    """The first layer with weights, and its input; None if no such layer was called."""
    bounded: dict[str, tuple[nn.Module, Tensor]] = field(default_factory=dict)
    """The layers with bounded outputs and these outputs, by the name of the layer."""

    def record_input(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Record the input of the first layer with weights. This is a forward pre-hook."""
        if self.first is None and inputs and isinstance(inputs[0], Tensor):
            self.first = module, inputs[0].detach()

    def record_output(self, name: str, module: nn.Module, _: Any, output: Any) -> None:
        """Record the output of a layer with bounded outputs. partial(record_output, name) is a forward hook."""
        if isinstance(output, Tensor):
            self.bounded[name] = module, output.detach()


@contextmanager
def record_layers(network: nn.Module, layers: LayerRecords) -> Iterator[None]:
    """Record inputs and outputs of layers in all forward passes of a network within the context."""
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if list(module.children()) or isinstance(module, torch.jit.ScriptModule):  # the latter takes no hooks
                continue
            if list(module.parameters()):
                hooks.enter_context(module.register_forward_pre_hook(layers.record_input))
            if isinstance(module, _BOUNDED):
                hooks.enter_context(module.register_forward_hook(partial(layers.record_output, name)))
        yield


@contextmanager
def uncompiled(network: nn.Module) -> Iterator[None]:
    """Within this context, run a network that was compiled in place as eager code, for tracing or for hooks."""
    compiled, network._compiled_call_impl = network._compiled_call_impl, None  # noqa: SLF001
    try:
        yield
    finally:
        network._compiled_call_impl = compiled  # noqa: SLF001


@contextmanager
def preserve_state(*parts: Any) -> Iterator[None]:
    """Restore at exit the state that a call of the modules or functions `parts` may change.

    This includes all random generators (of torch on each device, of Python, and of NumPy if it is imported), the mode
    of each module, and its `State`. Parameters are not restored, so a `forward` that overwrites them changes the
    network. Their `grad` is not restored: within the context, use torch.autograd.grad, not backward().
    """
    numpy = sys.modules.get("numpy")
    with ExitStack() as stack:
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        stack.enter_context(torch.random.fork_rng(devices))
        if torch.backends.mps.is_available():
            stack.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        stack.callback(random.setstate, random.getstate())
        if numpy is not None:
            stack.callback(numpy.random.set_state, numpy.random.get_state())
        stack.callback(State(*parts).restore)
        yield
