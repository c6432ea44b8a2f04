"""Checks whether the loss depends on earlier calls, or on random numbers that a resumed run does not repeat.

The loss scores the same batch after different earlier calls, each time from the state before the examination. What
then differs is remembered from more than the last call: a count, a running mean, a memory, the first value.
"""

import random
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from losslab.doctor.finding import Finding, warning
from losslab.doctor.training_setup import Setup
from losslab.losses.adapter.state import State


def unsaved_state(setup: Setup) -> Iterator[Finding]:
    """Find state of the loss outside its buffers, which a checkpoint does not contain."""
    if setup.number is None:
        return
    names, values, in_evaluation = _unsaved(setup)
    why = "checkpoints do not contain it: a resumed run and `losslab evaluate` start from its first value"
    if names:
        first = names[0].partition(" (")[0].rpartition(".")[2]
        problem = f"the loss changes {_listed(names)} with each call{', also in evaluation mode' * in_evaluation}"
        fix = f'keep it in a buffer, self.register_buffer("{first}", torch.tensor(...)), and change it only in training'
        if names[0].endswith("generator)"):
            fix = "draw from torch's default generator, which is seeded before each step"
        yield warning("loss-keeps-state", problem, why, fix)
    elif values is not None:
        problem = f"the loss of one batch is {values[0]:.6g} or {values[1]:.6g}, depending on the calls before it"
        fix = "keep what it remembers in buffers of a torch.nn.Module (self.register_buffer), which checkpoints contain"
        yield warning("loss-keeps-state", problem, why, fix)


def state_in_evaluation(setup: Setup) -> Iterator[Finding]:
    """Find buffers that the loss changes in evaluation mode."""
    if setup.number is None:
        return
    _, after_one = _score(setup, 1, training=False)
    _, after_two = _score(setup, 2, training=False)
    saved = after_one.saved | after_two.saved
    names = [name for name in after_one.changes(after_two) if name in saved]
    if names:
        problem = f"the loss changes {_listed(names)} in evaluation mode, too"
        why = "training and results then depend on how often the run is validated"
        yield warning("loss-learns-in-evaluation", problem, why, "change it only if self.training")


def random_values(setup: Setup) -> Iterator[Finding]:
    """Find random numbers that a resumed run or another evaluation does not repeat."""
    if setup.number is None:
        return
    first, same, other = (_score(setup, 1, training=True, python_seed=seed)[0] for seed in (0, 0, 1))
    if not _equal(first, same):
        return  # not at random, but from call to call, which `unsaved_state` finds
    if not _equal(first, other):
        problem = "the loss draws random numbers from the generators of Python or NumPy"
        why = "only those of torch are seeded for each step: a resumed run would draw other numbers"
        yield warning("loss-random", problem, why, "draw with torch, such as torch.rand or torch.randint")
        return
    first, other = (_score(setup, 1, training=False, torch_seed=seed)[0] for seed in (0, 1))
    if not _equal(first, other):
        problem = f"the loss of one batch is random in evaluation mode: {float(first):.4g} or {float(other):.4g}"
        why = "validation and test losses differ from one evaluation to the next"
        yield warning("loss-random", problem, why, "draw random numbers only if self.training")


def _unsaved(setup: Setup) -> tuple[list[str], tuple[float, float] | None, bool]:
    """Return the names of state outside buffers, two different values of one batch, and whether evaluation changes it.

    A name counts if its content depends on more than the last call, or if it changes and the value depends on it.
    """
    value, one = _score(setup, 1, training=True)
    later, two = _score(setup, 2, training=True)
    saved = one.saved | two.saved
    changed = one.changes(two)
    names = [name for name in changed if name not in saved]
    values = None if _equal(value, later) or len(names) < len(changed) else (float(value), float(later))
    assert setup.loss_state is not None  # noqa: S101 -- for the type checker
    if values is not None and not names:
        names = [name for name in setup.loss_state.changes(one) if name not in saved]
    if not names:
        return [], values, False
    (_, one), (_, two) = (_score(setup, calls, training=False) for calls in (1, 2))
    return names, values, any(name in names for name in one.changes(two))


def _score(
    setup: Setup, calls: int, *, training: bool, torch_seed: int = 0, python_seed: int = 0
) -> tuple[Tensor, State]:
    """Call the loss once or twice from its initial state. Return the last value, always of the batch, and the state."""
    assert setup.loss_state is not None  # noqa: S101 -- for the type checker
    setup.loss_state.restore()
    if isinstance(setup.loss, nn.Module):
        setup.loss.train(training)
    outputs, value = setup.outputs.detach(), torch.zeros(())
    for scale in (0.5, 1.0)[-calls:]:
        torch.manual_seed(torch_seed)
        random.seed(python_seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(python_seed)
        with torch.set_grad_enabled(training):
            value = setup.loss(scale * outputs.roll(int(scale < 1), 0).requires_grad_(training), setup.target)
    state = State(setup.loss, parameters=True)
    setup.loss_state.restore()
    return value.detach().mean(), state


def _listed(names: list[str]) -> str:
    names = [name.removeprefix("criterion.") for name in names]  # an attribute of `Adapted`
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, equal_nan=True)
