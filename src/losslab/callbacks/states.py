"""What a checkpoint of a run holds, and how it is written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

from losslab import durable
from losslab.errors import NonFiniteError


def whole(trainer: Trainer) -> dict[str, Any]:
    """All that a run goes on from. Asked on all processes, as each adds its own.

    Raises:
        NonFiniteError: it holds a NaN or an infinity.
    """
    state = unchecked(trainer)
    bad = first_non_finite(state)
    if bad is not None:
        message = f"step {trainer.global_step}: {bad} holds NaN or infinite values, no checkpoint is written"
        raise NonFiniteError(message)
    return state


def unchecked(trainer: Trainer) -> dict[str, Any]:
    """The same, whatever it holds."""
    state: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint()  # noqa: SLF001 -- what save_checkpoint writes
    # That training is to end early, though not before min_epochs or min_steps, Lightning does not keep.
    return state | {"should_stop": int(trainer.should_stop)}


_LEARNT = ("state_dict", "current_model_state", "optimizer_states")


def first_non_finite(state: dict[str, Any]) -> str | None:
    """The dotted name of the first number learnt that is NaN or infinite; None if there is none.

    What callbacks remember is not looked at: early stopping waits for less than infinity.
    """
    learnt = {name: state[name] for name in _LEARNT if name in state}
    return next((name for name, tensor in _tensors(learnt, "") if not torch.isfinite(tensor).all()), None)


def _tensors(state: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        if state.is_floating_point():
            yield name, state
    elif isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        for key, value in items:
            yield from _tensors(value, f"{name}.{key}".lstrip("."))


def of_the_network(state: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of the network alone, by the names that they have in it."""
    prefix = "network."
    weights: dict[str, Tensor] = state["state_dict"]
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def save(state: dict[str, Any], path: Path) -> None:
    """Write it durably.

    Raises:
        OSError: it cannot be written.
    """
    try:
        durable.write(path, lambda file: torch.save(state, file))
    except RuntimeError as error:  # with which torch covers the OSError of a full disk
        cause = error.__context__
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        raise cause or error from None
