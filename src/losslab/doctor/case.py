"""What is examined: the parts as they were given, and what they computed together."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from losslab.doctor.drawn import with_drawn_weights
from losslab.doctor.layers import Layers, watched
from losslab.doctor.reads import what_it_reads
from losslab.doctor.trial import Criterion, Reads, accepts


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
        for outputs in with_drawn_weights(self.network, copied(self.inputs)):
            known = outputs.detach()[~outputs.isnan().flatten(1).any(1)] if outputs.ndim > 1 else outputs
            if len(known) and not holds(known):
                return False
            told += len(known)
        return told > 0


def copied(inputs: Any) -> Any:
    """Inputs that a network may write into: those of the caller stay as they are."""
    return inputs.clone() if isinstance(inputs, Tensor) else inputs
