"""The network, loss, batch and optimizer to examine, and the values that they compute together."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from losslab.doctor.probe import LayerRecords, outputs_with_random_weights, record_layers
from losslab.losses.adapter.output_kind import OutputKind, identify, torch_class
from losslab.losses.adapter.probe import Criterion, finite_value, setting
from losslab.losses.adapter.state import State
from losslab.losses.base import Loss

_CERTAIN = 0.9
"""A row of probabilities that has one above this limit is treated as the index of that class."""


@dataclass
class Setup:
    """A network, a loss, a batch and an optimizer to examine, and the values that they compute.

    `inputs` and `target` are the first `max_examples` examples of the batch, or the whole batch if they are not tensors
    of one length. Values are computed when a check needs them, in training mode unless the docstring says otherwise.
    """

    network: nn.Module
    loss: Criterion
    all_inputs: Any
    all_targets: Any
    max_examples: int
    optimizer: torch.optim.Optimizer | None = None
    lr: float | None = None
    was_eval: bool = False
    """Whether the network was in evaluation mode before the examination."""
    loss_state: State | None = None
    """The state of the loss before the examination called it."""
    changes_inputs: bool = False
    """Whether the network changed its inputs in place when `outputs` was computed."""
    layers: LayerRecords = field(default_factory=LayerRecords)
    """Records of the layers in the forward pass that computes `outputs`."""

    def __post_init__(self) -> None:
        self.inputs, self.target = self.all_inputs, self.all_targets
        are_tensors = isinstance(self.inputs, Tensor) and isinstance(self.target, Tensor)
        if are_tensors and self.inputs.shape[:1] == self.target.shape[:1] != ():
            self.inputs, self.target = self.inputs[: self.max_examples], self.target[: self.max_examples]

    @cached_property
    def outputs(self) -> Any:
        """The outputs of the network for `inputs`, with their autograd graph."""
        inputs = cloned(self.inputs)
        with record_layers(self.network, self.layers):
            outputs = self.network(inputs)
        self.changes_inputs = isinstance(inputs, Tensor) and not torch.equal(
            inputs.nan_to_num(), self.inputs.nan_to_num()
        )
        return outputs

    @property
    def ending(self) -> str:
        """The end of a message, such as ": the network ends in Softmax (layer 3)"; empty if outputs are not bounded."""
        for name, (module, output) in self.layers.bounded.items():
            if output.data_ptr() == self.outputs.data_ptr():  # also through a squeeze or a flatten
                return f": the network ends in {type(module).__name__}" + (f" (layer {name})" if name else "")
        return ""

    @property
    def has_tensors(self) -> bool:
        """Whether outputs and target are tensors, and the outputs are floats and not empty."""
        both = isinstance(self.outputs, Tensor) and isinstance(self.target, Tensor)
        return both and self.outputs.is_floating_point() and self.outputs.ndim > 0 and self.outputs.numel() > 0

    @cached_property
    def torch_class(self) -> type[nn.Module] | None:
        """The class of the loss in torch.nn, also for its function in torch.nn.functional; None for other losses."""
        return torch_class(self.loss)

    @cached_property
    def output_kind(self) -> OutputKind:
        """How the loss interprets the outputs."""
        return identify(self.loss, self.outputs.detach(), self.target) if self.has_tensors else OutputKind.UNKNOWN

    @property
    def takes_only_indices(self) -> bool:
        """Whether the loss is NLLLoss, or takes log-probabilities as outputs and was given class indices."""
        with_indices = self.output_kind is OutputKind.LOG_PROBABILITIES and not self.target.is_floating_point()
        return self.torch_class is nn.NLLLoss or with_indices

    @property
    def takes_indices(self) -> bool:
        """Whether the loss takes class indices."""
        classes = self.output_kind in {OutputKind.LOGITS, OutputKind.SCORES} or self.takes_only_indices
        return self.has_tensors and classes and self.outputs.ndim > 1

    @property
    def ignore_index(self) -> int | None:
        """The class index whose examples the loss ignores; None if there is none."""
        default = None if isinstance(self.loss, Loss | nn.MultiMarginLoss) else -100
        index: int | None = setting(self.loss, "ignore_index", default=default)
        return index

    @property
    def counted_targets(self) -> Tensor:
        """The class indices of the whole batch without the ignored index."""
        targets: Tensor = self.all_targets
        return targets if self.ignore_index is None else targets[targets != self.ignore_index]

    @cached_property
    def accepts_all_targets(self) -> bool:
        """Whether the loss of outputs that are 0 is finite with all targets of the batch.

        The loss is computed on the CPU, since on a GPU an index out of range makes the device unusable in this process.
        """
        on_gpu = isinstance(self.loss, nn.Module) and self.all_targets.device.type != "cpu"
        loss = deepcopy(self.loss).cpu() if on_gpu else self.loss  # type: ignore[attr-defined]
        zeros = torch.zeros(len(self.all_targets), *self.outputs.shape[1:], dtype=self.outputs.dtype)
        return finite_value(loss, zeros, self.all_targets.cpu()) is not None

    @property
    def one_hot_target(self) -> Tensor | None:
        """The targets as one-hot rows in the shape of the outputs, (N, C, ...); None if they are not classes."""
        if not self.has_tensors or self.outputs.ndim < 2 or self.outputs.shape[1] < 2:
            return None
        if self.output_kind in {OutputKind.VALUES, OutputKind.LOG_VALUES}:
            return None
        target, outputs = self.target, self.outputs.detach()
        if target.is_floating_point() and target.shape == outputs.shape:
            is_certain = bool((target >= 0).all() and (target.amax(1) > _CERTAIN).all())
            target = target.argmax(1) if is_certain and bool(((target.sum(1) - 1).abs() < 1e-2).all()) else target
        if target.is_floating_point() or target.shape != outputs.shape[:1] + outputs.shape[2:]:
            return None
        indices = target.long().clamp(0, outputs.shape[1] - 1).unsqueeze(1)
        return torch.zeros_like(outputs).scatter_(1, indices, 1.0)

    @cached_property
    def value(self) -> Any:
        """The return value of the loss for `outputs` and `target`, with its autograd graph."""
        return self.loss(self.outputs, self.target)

    @property
    def number(self) -> float | None:
        """The value of the loss as a float; None if it is not a single number."""
        single = isinstance(self.value, Tensor) and self.value.numel() == 1
        return float(self.value.detach()) if single else None

    @cached_property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters of the network that require a gradient, by name."""
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    @cached_property
    def gradients(self) -> dict[str, Tensor | None]:
        """The gradient of each trainable parameter by name; None if the loss does not depend on the parameter."""
        grads = torch.autograd.grad(self.value, list(self.trainable.values()), allow_unused=True, retain_graph=True)
        return dict(zip(self.trainable, grads, strict=True))

    @property
    def maximizes(self) -> bool:
        """Whether the optimizer maximizes the loss."""
        return self.optimizer is not None and any(group.get("maximize") for group in self.optimizer.param_groups)

    @cached_property
    def eval_outputs(self) -> tuple[Any, Any]:
        """The outputs for up to 16 examples in evaluation mode, and the outputs for only the first half of them."""
        some = self.inputs[:16]
        return self.evaluate(some), self.evaluate(some[: max(1, len(some) // 2)])

    def evaluate(self, inputs: Any) -> Any:
        """Return the outputs for these inputs in evaluation mode."""
        modes = {module: module.training for module in self.network.modules()}
        self.network.eval()
        try:
            with torch.no_grad():
                return self.network(cloned(inputs))
        finally:
            for module, mode in modes.items():
                module.training = mode

    def holds_for_any_weights(self, condition: Callable[[Tensor], bool]) -> bool:
        """Return whether the outputs meet a condition with the current weights and with many random weights."""
        if not condition(self.outputs.detach()):
            return False
        count = 0
        for outputs in outputs_with_random_weights(self.network, cloned(self.inputs)):
            valid = outputs.detach()[~outputs.isnan().flatten(1).any(1)] if outputs.ndim > 1 else outputs
            if len(valid) and not condition(valid):
                return False
            count += len(valid)
        return count > 0

    @property
    def linear_layer(self) -> nn.Linear | None:
        """The only layer with trainable parameters, if it is an nn.Linear; otherwise None."""
        layers = [m for m in self.network.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
        if len(layers) != 1 or not isinstance(layers[0], nn.Linear) or not self.has_tensors or self.outputs.ndim != 2:
            return None
        return layers[0]


def cloned(inputs: Any) -> Any:
    """Return a copy of the inputs, since a network may modify them in place."""
    return inputs.clone() if isinstance(inputs, Tensor) else inputs
