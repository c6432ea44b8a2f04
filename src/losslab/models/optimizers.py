"""What some optimizers need: a mode of their own, or several evaluations of the loss in a step."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from math import nan
from typing import Any

import torch
from lightning.fabric.utilities.types import Optimizable
from torch import Tensor, nn
from torch.optim import Optimizer

from losslab.errors import LabError


def set_mode(optimizer: Optimizer, *, training: bool) -> bool:
    """Call the `train` or `eval` method of an optimizer, and return whether it has both.

    Schedule-free optimizers, for example, train other weights than those to evaluate, and exchange them there.
    """
    methods = (getattr(optimizer, "train", None), getattr(optimizer, "eval", None))
    if not all(map(callable, methods)):
        return False
    methods[0 if training else 1]()  # type: ignore[misc]
    return True


def learning_rate(optimizer: Optimizer) -> float:
    """Return the learning rate of the first parameter group; NaN if the optimizer has none."""
    rate: float | Tensor | None = optimizer.param_groups[0].get("lr")
    return nan if rate is None else rate.item() if isinstance(rate, Tensor) else rate


@torch.no_grad()
def separate_weights(optimizer: Optimizer, module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights to train and the weights to evaluate, by name, of an optimizer in training mode.

    Both are empty if it has no modes. The weights and the mode are as before, exactly.
    """
    training = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    if not set_mode(optimizer, training=False):
        return {}, {}
    evaluated = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    set_mode(optimizer, training=True)
    for name, parameter in module.named_parameters():
        parameter.copy_(training[name])
    return training, evaluated


def try_step(
    factory: Callable[..., Optimizer], parameters: Iterable[nn.Parameter], device: torch.device
) -> tuple[Optimizer, int]:
    """Let a new optimizer take a step on small copies of the parameters. Return it and how often it evaluated the loss.

    It is called as by Lightning: with a closure, and before there are gradients.

    Raises:
        LabError: it is no optimizer, does not call the closure, or needs gradients before.
    """
    copies = [
        nn.Parameter(
            torch.ones([min(size, 2) for size in each.shape], dtype=each.dtype, device=device), each.requires_grad
        )
        for each in parameters
    ]
    evaluations = 0

    @torch.enable_grad()
    def closure() -> Tensor:
        nonlocal evaluations
        evaluations += 1
        optimizer.zero_grad()
        loss = torch.stack([each.float().square().sum() for each in copies if each.requires_grad]).sum()
        loss.backward()
        return loss.detach()

    with torch.random.fork_rng(devices=[]):
        optimizer = factory(copies)
        name = type(optimizer).__name__
        if not isinstance(optimizer, Optimizable):
            raise LabError(f"optimizer: {name} is no torch.optim.Optimizer: choose another")
        set_mode(optimizer, training=True)
        try:
            optimizer.step(closure=closure)  # type: ignore[arg-type]
        except Exception as error:
            if evaluations == 0 and _succeeds(closure, partial(optimizer.step, closure=closure)):
                raise LabError(
                    f"optimizer: {name}.step(closure) must call the closure first: before, there are no gradients"
                ) from error
            raise
    if not evaluations:
        raise LabError(f"optimizer: {name}.step(closure) does not call the closure: choose another")
    return optimizer, evaluations


def _succeeds(*steps: Callable[[], Any]) -> bool:
    with suppress(Exception):
        for step in steps:
            step()
        return True
    return False


def check_accumulation(optimizer: Optimizer, accumulated: int) -> None:
    """Raise a LabError if batches are accumulated, for an optimizer that evaluates the loss several times in a step."""
    if accumulated > 1:
        raise LabError(
            f"optimizer: {type(optimizer).__name__} evaluates the loss several times in a step, which accumulated "
            "batches do not allow: set trainer.accumulate_grad_batches=1 and a larger data.batch_size"
        )


class Evaluations:
    """The evaluations of the loss in one step. Some optimizers, such as LBFGS, need several.

    After the step, the buffers of the module have the values after the first evaluation. So, for example, BatchNorm
    counts each batch once in its running statistics.
    """

    def __init__(self) -> None:
        self.count = 0
        """The number of evaluations in the current step until now."""
        self._buffers: dict[str, Tensor] = {}

    def start_step(self) -> None:
        """Regard the next evaluation as the first one of a step."""
        self.count = 0

    def start_next(self, module: nn.Module) -> bool:
        """Return whether this evaluation is the first one of the step. If it is the second, save the buffers."""
        self.count += 1
        if self.count == 2:
            self._buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        return self.count == 1

    def end_step(self, module: nn.Module) -> None:
        """Restore the buffers if they were saved."""
        if self._buffers:
            for name, buffer in module.named_buffers():
                buffer.copy_(self._buffers[name])
            self._buffers = {}
