"""Optimizers that update stacked parameters (M, ...) with numbers, such as the learning rate, of each member's own.

The updates are those of torch.optim, with a tensor (M,) in place of each number. The numbers are read from one torch
optimizer for each distinct setting, on which the torch schedulers work.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from losslab.training.fused.stack import NotFusableError

_SETTINGS = ("nesterov", "amsgrad", "maximize", "centered", "decoupled_weight_decay")
"""Options that must be the same for all members."""


class StackedOptimizer(Optimizer):
    """Base class of optimizers of stacked parameters.

    Args:
        parameters: the stacked parameters (M, ...).
        settings: a torch optimizer for each distinct setting. Their numbers are used, their parameters are not.
        setting_of: for each member, the index of its setting.

    Raises:
        NotFusableError: the settings differ in an option that must be the same for all members, or need more memory of
            a kind that is not supported.
    """

    numbers: tuple[str, ...] = ("lr", "weight_decay")
    """The names of the numbers that each member has."""

    def __init__(self, parameters: Sequence[nn.Parameter], settings: Sequence[Optimizer], setting_of: Tensor) -> None:
        super().__init__([each for each in parameters if each.requires_grad], {})
        self.settings, self.setting_of = settings, setting_of
        options = [{name: each.param_groups[0].get(name) for name in _SETTINGS} for each in settings]
        if any(each != options[0] for each in options) or options[0]["amsgrad"]:
            raise NotFusableError("the options of their optimizers differ, or are not supported")
        self.options = options[0]
        self._numbers: dict[str, Tensor] = {}
        self.read_numbers()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parameters = [each for each in self.param_groups[0]["params"] if each.grad is not None]
        if parameters:
            gradients = [each.grad.neg() if self.options["maximize"] else each.grad for each in parameters]
            self.update(parameters, gradients, self._numbers)
        return loss

    def read_numbers(self) -> None:
        """Read the numbers from the torch optimizers. Call this when a scheduler has changed them."""
        groups = [dict(_numbers(each.param_groups[0], self.numbers)) for each in self.settings]
        # In float64, as the numbers of torch's optimizers are.
        table = torch.tensor([[*group.values()] for group in groups], dtype=torch.float64)[self.setting_of]
        device = self.param_groups[0]["params"][0].device
        self._numbers = dict(zip(groups[0], table.to(device).unbind(1), strict=True))

    def update(self, parameters: list[Tensor], gradients: list[Tensor], numbers: dict[str, Tensor]) -> None:
        """Update the parameters in place. `numbers` maps each name to a tensor (M,)."""
        raise NotImplementedError

    def tensors(self) -> list[Tensor]:
        """Return the stacked tensors (M, ...) of the state, in a fixed order."""
        return [value for state in self.state.values() for value in state.values() if value.ndim]

    def state_of(
        self, member: int, tensors: Sequence[Tensor] | None = None, steps: float | None = None
    ) -> dict[str, Any]:
        """Return the `state_dict` that the member's own torch optimizer would have.

        Args:
            member: the index of the member.
            tensors: the stacked tensors of the state at an earlier time, as `tensors` returned them; by default now.
            steps: the number of steps at that time.
        """
        group = self.settings[int(self.setting_of[member])].param_groups[0]
        names = [(parameter, name) for parameter, each in self.state.items() for name in each if each[name].ndim]
        stacked = dict(zip(names, self.tensors() if tensors is None else tensors, strict=True))
        state: dict[int, dict[str, Tensor]] = {}
        for index, parameter in enumerate(self.param_groups[0]["params"]):
            for name, value in self.state.get(parameter, {}).items():
                if name == "momentum_buffer" and group["momentum"] == 0:
                    continue  # an optimizer without momentum has no such state
                is_count = value.ndim == 0
                own = value.clone() if is_count else stacked[parameter, name][member].clone()
                state.setdefault(index, {})[name] = torch.full_like(own, steps) if is_count and steps else own
        return {
            "state": state,
            "param_groups": self.settings[int(self.setting_of[member])].state_dict()["param_groups"],
        }

    def rates(self) -> list[float]:
        """Return the learning rate of each setting."""
        return [float(each.param_groups[0]["lr"]) for each in self.settings]

    def buffers(self, name: str, parameters: Sequence[Tensor]) -> tuple[list[Tensor], bool]:
        """Return a state of all parameters, and whether it is new, so that it contains only zeros."""
        is_new = name not in self.state[parameters[0]]
        for parameter in parameters if is_new else ():
            self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters], is_new

    def count_step(self, parameters: Sequence[Tensor]) -> int:
        """Count a step in the state of all parameters, as torch does, and return the number of steps."""
        for parameter in parameters:
            count = self.state[parameter].setdefault("step", torch.zeros((), dtype=torch.float32))
            count += 1
        return int(count)


def _numbers(group: dict[str, Any], names: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a parameter group by name; those of a tuple, such as betas, as betas0 and betas1."""
    for name in names:
        value = group[name]
        if isinstance(value, tuple | list):
            yield from ((f"{name}{index}", float(part)) for index, part in enumerate(value))
        else:
            yield name, float(value)


def _along(values: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return numbers (M,) in the shapes (M, 1, ...) that broadcast with each tensor (M, ...)."""
    return [values.to(each.dtype).view(-1, *[1] * (each.ndim - 1)) for each in tensors]


class StackedSGD(StackedOptimizer):
    """torch.optim.SGD."""

    numbers = ("lr", "weight_decay", "momentum", "dampening")

    def update(self, parameters: list[Tensor], gradients: list[Tensor], numbers: dict[str, Tensor]) -> None:
        if numbers["weight_decay"].any():
            decay = torch._foreach_mul(parameters, _along(numbers["weight_decay"], parameters))
            gradients = [*torch._foreach_add(gradients, decay)]
        momentum = numbers["momentum"]
        if momentum.any():
            velocities, is_new = self.buffers("momentum_buffer", parameters)
            damped = gradients
            if not is_new and numbers["dampening"].any():
                kept = torch.where(momentum == 0, 1.0, 1 - numbers["dampening"])
                damped = [*torch._foreach_mul(gradients, _along(kept, gradients))]
            torch._foreach_mul_(velocities, _along(momentum, velocities))
            torch._foreach_add_(velocities, damped)
            if self.options["nesterov"]:
                gradients = [
                    *torch._foreach_add(gradients, torch._foreach_mul(velocities, _along(momentum, velocities)))
                ]
            else:
                gradients = velocities
        torch._foreach_add_(parameters, torch._foreach_mul(gradients, _along(-numbers["lr"], gradients)))


class StackedAdam(StackedOptimizer):
    """torch.optim.Adam and AdamW, which decouples the weight decay from the gradient."""

    numbers = ("lr", "weight_decay", "betas", "eps")

    def update(self, parameters: list[Tensor], gradients: list[Tensor], numbers: dict[str, Tensor]) -> None:
        step = self.count_step(parameters)
        rate, decay, beta1, beta2 = (numbers[name] for name in ("lr", "weight_decay", "betas0", "betas1"))
        if decay.any() and self.options["decoupled_weight_decay"]:
            torch._foreach_mul_(parameters, _along(1 - rate * decay, parameters))
        elif decay.any():
            gradients = [*torch._foreach_add(gradients, torch._foreach_mul(parameters, _along(decay, parameters)))]
        averages, _ = self.buffers("exp_avg", parameters)
        squares, _ = self.buffers("exp_avg_sq", parameters)
        torch._foreach_lerp_(averages, gradients, _along(1 - beta1, averages))
        torch._foreach_mul_(squares, _along(beta2, squares))
        torch._foreach_add_(
            squares, torch._foreach_mul(torch._foreach_mul(gradients, gradients), _along(1 - beta2, squares))
        )
        scale, root = 1 - beta1**step, (1 - beta2**step).sqrt()
        divisors = torch._foreach_div(torch._foreach_sqrt(squares), _along(root, squares))
        torch._foreach_add_(divisors, _along(numbers["eps"], squares))
        updates = torch._foreach_div(averages, divisors)
        torch._foreach_add_(parameters, torch._foreach_mul(updates, _along(-rate / scale, updates)))


class StackedRMSprop(StackedOptimizer):
    """torch.optim.RMSprop."""

    numbers = ("lr", "weight_decay", "momentum", "alpha", "eps")

    def update(self, parameters: list[Tensor], gradients: list[Tensor], numbers: dict[str, Tensor]) -> None:
        self.count_step(parameters)
        if numbers["weight_decay"].any():
            decay = torch._foreach_mul(parameters, _along(numbers["weight_decay"], parameters))
            gradients = [*torch._foreach_add(gradients, decay)]
        kept, alpha = numbers["momentum"], numbers["alpha"]
        squares, _ = self.buffers("square_avg", parameters)
        torch._foreach_mul_(squares, _along(alpha, squares))
        torch._foreach_add_(
            squares, torch._foreach_mul(torch._foreach_mul(gradients, gradients), _along(1 - alpha, squares))
        )
        divisors = squares
        if self.options["centered"]:
            means, _ = self.buffers("grad_avg", parameters)
            torch._foreach_lerp_(means, gradients, _along(1 - alpha, means))
            divisors = [*torch._foreach_sub(squares, torch._foreach_mul(means, means))]
        divisors = [*torch._foreach_add(torch._foreach_sqrt(divisors), _along(numbers["eps"], squares))]
        updates = [*torch._foreach_div(gradients, divisors)]
        if kept.any():
            velocities, _ = self.buffers("momentum_buffer", parameters)
            torch._foreach_mul_(velocities, _along(kept, velocities))
            torch._foreach_add_(velocities, updates)
            updates = velocities
        torch._foreach_add_(parameters, torch._foreach_mul(updates, _along(-numbers["lr"], updates)))


_STACKED: dict[type[Optimizer], type[StackedOptimizer]] = {
    SGD: StackedSGD,
    Adam: StackedAdam,
    AdamW: StackedAdam,
    RMSprop: StackedRMSprop,
}


def stack_optimizers(
    parameters: Sequence[nn.Parameter], settings: Sequence[Optimizer], setting_of: Tensor
) -> StackedOptimizer:
    """Return the optimizer of stacked parameters for torch optimizers of one class. See `StackedOptimizer`.

    Raises:
        NotFusableError: there is no such optimizer, or the settings differ in more than numbers.
    """
    kinds = {type(each) for each in settings}
    if len(kinds) > 1 or not kinds <= _STACKED.keys():
        raise NotFusableError(f"{', '.join(sorted(each.__name__ for each in kinds))} cannot be stacked")
    return _STACKED[kinds.pop()](parameters, settings, setting_of)


def gradient_norms(parameters: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm (M,) of the gradient of each member."""
    squares = [each.grad.flatten(1).square().sum(1) for each in parameters if each.grad is not None]
    return torch.stack(squares).sum(0).sqrt()


def clip_gradients(parameters: Sequence[Tensor], limits: Tensor, *, by_value: bool) -> None:
    """Clip the gradient of each member as torch.nn.utils.clip_grad_norm_ or clip_grad_value_ does.

    Args:
        parameters: stacked parameters (M, ...).
        limits: the largest norm or value (M,); infinite for members whose gradients are not clipped.
        by_value: whether each element is clipped instead of the norm.
    """
    gradients = [each.grad for each in parameters if each.grad is not None]
    if by_value:
        for gradient, limit in zip(gradients, _along(limits, gradients), strict=True):
            gradient.clamp_(-limit, limit)
        return
    scale = (limits / (gradient_norms(parameters) + 1e-6)).clamp(max=1)
    torch._foreach_mul_(gradients, _along(scale, gradients))
