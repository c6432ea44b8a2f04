"""What is examined: the parts as they were given, and what they computed together.

The linear model, whose mean squared error is a quadratic with a known Hessian.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from losslab.doctor.probe import Criterion, Layers, Reads, accepts, random_reweightings, watched, what_it_reads


@dataclass
class Case:
    """A network, a loss and a batch, of which the network sees the first `N` examples and the targets are seen whole.

    Everything is computed once, in training mode unless said otherwise, and only when a check asks for it.
    """

    network: nn.Module
    loss: Criterion
    everything: Any
    """All inputs of the batch."""
    targets: Any
    """All targets of the batch."""
    examples: int
    optimizer: torch.optim.Optimizer | None = None
    lr: float | None = None
    asleep: bool = False
    """Whether the network was given in evaluation mode."""

    @cached_property
    def inputs(self) -> Any:
        """What the network is given, (N, ...)."""
        return self.everything[: self.examples] if self._divisible else self.everything

    @cached_property
    def target(self) -> Any:
        """The targets of those examples."""
        return self.targets[: self.examples] if self._divisible else self.targets

    @property
    def _divisible(self) -> bool:
        both = isinstance(self.everything, Tensor) and isinstance(self.targets, Tensor)
        return both and self.everything.shape[:1] == self.targets.shape[:1] != ()

    @cached_property
    def _seen(self) -> tuple[Any, Layers]:
        with watched(self.network) as layers:
            return self.network(copied(self.inputs)), layers

    @property
    def outputs(self) -> Any:
        """Of the network, with their graph."""
        return self._seen[0]

    @property
    def layers(self) -> Layers:
        """What was noted of the layers on the way to the outputs."""
        return self._seen[1]

    @property
    def tensors(self) -> bool:
        """Whether outputs and target are tensors with a row an example: what most checks need."""
        both = isinstance(self.outputs, Tensor) and isinstance(self.target, Tensor)
        return both and self.outputs.is_floating_point() and self.outputs.ndim > 0 and self.outputs.numel() > 0

    @cached_property
    def reads(self) -> Reads:
        """What the loss takes the outputs for."""
        if not self.tensors:
            return Reads.UNKNOWN
        return what_it_reads(self.loss, self.outputs.detach(), self.target)

    @cached_property
    def acceptable(self) -> bool:
        """Whether the loss gives a finite number for all targets of the batch, beside outputs of 0."""
        zeros = torch.zeros(len(self.targets), *self.outputs.shape[1:], dtype=self.outputs.dtype)
        return accepts(self.loss, zeros, self.targets)

    @cached_property
    def value(self) -> Any:
        """What the loss returned, with its graph."""
        return self.loss(self.outputs, self.target)

    @property
    def number(self) -> float | None:
        """The loss as a number; None where it is none."""
        one = isinstance(self.value, Tensor) and self.value.numel() == 1
        return float(self.value.detach()) if one else None

    @cached_property
    def trained(self) -> dict[str, nn.Parameter]:
        """The network's parameters that want a gradient, by name."""
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    @cached_property
    def gradients(self) -> dict[str, Tensor | None]:
        """Of the loss, by the parameters' names; None where a parameter takes no part in it."""
        grads = torch.autograd.grad(self.value, list(self.trained.values()), allow_unused=True, retain_graph=True)
        return dict(zip(self.trained, grads, strict=True))

    @cached_property
    def evaluated(self) -> tuple[Any, Any]:
        """Outputs in evaluation mode of some examples, and of the first half of them alone."""
        some = copied(self.inputs[:16])
        modes = {module: module.training for module in self.network.modules()}
        self.network.eval()
        try:
            with torch.no_grad():
                return self.network(some), self.network(some[: max(1, len(some) // 2)])
        finally:
            for module, mode in modes.items():
                module.training = mode

    def whatever_the_weights(self, holds: Callable[[Tensor], bool]) -> bool:
        """Whether what holds for these outputs holds for those of any weights too."""
        if not holds(self.outputs.detach()):
            return False
        told = 0
        for outputs in random_reweightings(self.network, copied(self.inputs)):
            known = outputs.detach()[~outputs.isnan().flatten(1).any(1)] if outputs.ndim > 1 else outputs
            if len(known) and not holds(known):
                return False
            told += len(known)
        return told > 0


def copied(inputs: Any) -> Any:
    """Inputs that a network may write into: those of the caller stay as they are."""
    return inputs.clone() if isinstance(inputs, Tensor) else inputs


def linear_layer(case: Case) -> nn.Linear | None:
    """The one linear layer that holds all that is learnt and gives the outputs; None for other networks."""
    layers = [m for m in case.network.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
    if len(layers) != 1 or not isinstance(layers[0], nn.Linear) or not case.tensors or case.outputs.ndim != 2:
        return None
    return layers[0]


def largest_eigenvalue(case: Case, layer: nn.Linear) -> float:
    """λmax of the Hessian of the mean squared error over the whole batch: 2 σ²/(N D), σ of [features, 1].

    0 where the layer's outputs are not those of the network.
    """
    given: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _, inputs, output: given.append((inputs[0], output)))
    try:
        with torch.no_grad():
            outputs = case.network(case.everything)
    finally:
        hook.remove()
    if len(given) != 1 or not torch.equal(given[0][1].view_as(outputs), outputs):
        return 0.0
    features = given[0][0].detach().double()
    if layer.bias is not None and layer.bias.requires_grad:
        features = torch.cat([features, features.new_ones(len(features), 1)], 1)
    elements = 1 if getattr(case.loss, "reduction", "mean") == "sum" else outputs.numel()
    decay = case.optimizer.param_groups[0]["weight_decay"] if case.optimizer is not None else 0.0
    return float(2 * torch.linalg.matrix_norm(features, 2).square() / elements + decay)
