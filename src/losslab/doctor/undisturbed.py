"""Look at a network without leaving a trace."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn


@contextmanager
def undisturbed(*parts: Any) -> Iterator[None]:
    """Give back all that computing with these modules changes.

    That is the state of every random generator (torch's on each device, Python's, NumPy's where it is loaded), and of
    each module its buffers, mode and attributes. Gradients are the caller's to leave alone: take them with
    torch.autograd.grad. Parameters are not copied: a network whose `forward` overwrites them is changed.
    """
    modules = [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]
    with ExitStack() as undo:
        for restore in [*_generators(), *(_of(module) for module in modules)]:
            undo.callback(restore)
        yield


def _generators() -> list[Callable[[], Any]]:
    found: list[Callable[[], Any]] = [
        partial(torch.default_generator.set_state, torch.default_generator.get_state()),
        partial(random.setstate, random.getstate()),
    ]
    if torch.cuda.is_initialized():
        found += [
            partial(torch.cuda.set_rng_state, torch.cuda.get_rng_state(device), device)
            for device in range(torch.cuda.device_count())
        ]
    if torch.backends.mps.is_available():
        found.append(partial(torch.mps.set_rng_state, torch.mps.get_rng_state()))
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        found.append(partial(numpy.random.set_state, numpy.random.get_state()))
    return found


def _of(module: nn.Module) -> Callable[[], None]:
    """What brings a module back to where it is now."""
    attributes = dict(vars(module))
    tables = [(value, dict(value)) for value in attributes.values() if isinstance(value, dict)]
    lists = [(value, list(value)) for value in attributes.values() if isinstance(value, list)]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers(recurse=False)]

    def restore() -> None:
        vars(module).clear()
        vars(module).update(attributes)
        for table, content in tables:
            table.clear()
            table.update(content)
        for items, held in lists:
            items[:] = held
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

    return restore
