"""The optimizer of stacked parameters (M, ...): a torch optimizer for the rows of each distinct setting."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from losslab.training.fused.stack import NotFusableError

_ELEMENTWISE = (
    optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad, optim.Adadelta, optim.Adamax, optim.NAdam,
    optim.RAdam, optim.ASGD,
)  # fmt: skip
"""Optimizers that update each weight by its own gradients alone. So members in one tensor do not affect each other."""
_WITH_FUSED_KERNEL = (optim.SGD, optim.Adam, optim.AdamW)
"""Optimizers whose `fused` implementation reads the weights only once, on CPUs too."""


class StackedOptimizer(Optimizer):
    """Updates stacked parameters. Members with the same setting, such as the learning rate, share a torch optimizer.

    Args:
        parameters: the stacked parameters (M, ...). The members with the same setting must be neighbours.
        factories: for each setting, the function of the parameters that returns the torch optimizer.
        counts: for each setting, the number of members.

    Raises:
        NotFusableError: an optimizer is not supported.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], factories: Sequence[Callable[..., Optimizer]], counts: Sequence[int]
    ) -> None:
        # With those that are not trained, because the numbers of the parameters in a checkpoint count them.
        self._parameters = [*parameters]
        super().__init__(self._parameters, {})
        self.setting_of = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        self.starts = [0, *torch.tensor(counts).cumsum(0).tolist()]
        self._slices = [
            [nn.Parameter(each.detach()[start:end], each.requires_grad) for each in self._parameters]
            for start, end in zip(self.starts, self.starts[1:], strict=False)
        ]
        self.optimizers = [_make(*pair) for pair in zip(factories, self._slices, strict=True)]
        """The torch optimizer of each setting, on which the schedulers work."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Compute the gradients with the closure, and update all parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = [each.grad for each in self._parameters]
        for number, (slices, optimizer) in enumerate(zip(self._slices, self.optimizers, strict=True)):
            start, end = self.starts[number : number + 2]
            for part, gradient in zip(slices, gradients, strict=True):
                part.grad = None if gradient is None else gradient[start:end]
            optimizer.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the torch optimizers."""
        return {"optimizers": [each.state_dict() for each in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the states of the torch optimizers."""
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)

    def rates(self) -> Tensor:
        """Return the learning rate of each member, float64 (M,)."""
        rates = [float(each.param_groups[0]["lr"]) for each in self.optimizers]
        return torch.tensor(rates, dtype=torch.float64)[self.setting_of]

    def parameter_groups(self) -> list[Any]:
        """Return the `param_groups` of the `state_dict` of each setting, with the options that its user chose."""
        groups = [each.state_dict()["param_groups"] for each in self.optimizers]
        return [[group | ({"fused": None} if "fused" in group else {}) for group in own] for own in groups]

    def tensors(self) -> list[Tensor]:
        """Return the tensors of the state in a fixed order, each with the rows of the members of one setting."""
        return [tensor for _, _, _, tensor in self._state() if tensor.ndim]

    def first_rows(self) -> list[int]:
        """Return for each of the `tensors` the member of its first row."""
        return [self.starts[number] for number, _, _, tensor in self._state() if tensor.ndim]

    def state_of(
        self, member: int, tensors: Sequence[Tensor] | None = None, steps: float | None = None
    ) -> dict[int, dict[str, Tensor]]:
        """Return the `state` in the `state_dict` of the member's own torch optimizer.

        Args:
            member: the index of the member.
            tensors: the `tensors` at an earlier time; by default now.
            steps: the number of steps at that time.
        """
        remaining = iter(self.tensors() if tensors is None else tensors)
        state: dict[int, dict[str, Tensor]] = {}
        for number, index, name, tensor in self._state():
            stacked = next(remaining) if tensor.ndim else None
            if number != int(self.setting_of[member]):
                continue
            if stacked is not None:
                own = stacked[member - self.starts[number]].clone()
            else:
                own = tensor.clone() if steps is None else torch.full_like(tensor, steps)
            state.setdefault(index, {})[name] = own
        return state

    def discard(self, member: int) -> None:
        """Set the state of a member to zeros."""
        for first, tensor in zip(self.first_rows(), self.tensors(), strict=True):
            if 0 <= member - first < len(tensor):
                tensor[member - first] = 0

    def _state(self) -> Iterator[tuple[int, int, str, Tensor]]:
        """Yield (number of the setting, index of the parameter, name, tensor) for each tensor of the state."""
        for number, (slices, optimizer) in enumerate(zip(self._slices, self.optimizers, strict=True)):
            for index, parameter in enumerate(slices):
                for name, value in optimizer.state.get(parameter, {}).items():
                    if isinstance(value, Tensor):  # SGD without momentum stores None
                        yield number, index, name, value


def _make(factory: Callable[..., Optimizer], parameters: list[nn.Parameter]) -> Optimizer:
    optimizer = factory(parameters)
    if type(optimizer) not in _ELEMENTWISE or optimizer.param_groups[0].get("differentiable"):
        raise NotFusableError(f"{type(optimizer).__name__} may mix the gradients of several weights")
    group, is_float = optimizer.param_groups[0], all(each.is_floating_point() for each in parameters)
    undecided = group.get("fused", False) is None and group.get("foreach") is None
    if type(optimizer) in _WITH_FUSED_KERNEL and undecided and is_float and not isinstance(group["lr"], Tensor):
        optimizer = factory(parameters, fused=True)
    return optimizer


def gradient_norms(gradients: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm (M,) of the gradient of each member, given those of all parameters (M, ...)."""
    norms = torch.stack([torch.linalg.vector_norm(each.flatten(1), dim=1) for each in gradients])
    total: Tensor = torch.linalg.vector_norm(norms, dim=0)
    return total


def clip_gradients(gradients: Sequence[Tensor], limits: Tensor, *, by_value: bool) -> None:
    """Clip the gradient of each member as torch.nn.utils.clip_grad_norm_ or clip_grad_value_ does.

    Args:
        gradients: gradients of stacked parameters (M, ...).
        limits: the largest norm or value (M,); infinite for members whose gradients are not clipped.
        by_value: whether each element is clipped instead of the norm.
    """
    if not by_value:
        limits = (limits / (gradient_norms(gradients) + 1e-6)).clamp(max=1)
    for gradient in gradients:
        own = limits.to(gradient.dtype).view(-1, *[1] * (gradient.ndim - 1))
        if by_value:
            gradient.clamp_(-own, own)
        else:
            gradient.mul_(own)
