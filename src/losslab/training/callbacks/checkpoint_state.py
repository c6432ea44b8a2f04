"""The content of a checkpoint: taken from the trainer, kept in memory, and written to a file."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from losslab.errors import NonFiniteError

_LEARNED = ("state_dict", "current_model_state", "optimizer_states")
"""The parts of a checkpoint that must be finite. Callback states may contain infinity (EarlyStopping.best_score)."""


class GrowingState(Callback):
    """Base class of callbacks whose state contains a list that grows with the run, such as the rows of a table.

    A checkpoint that is kept in memory contains only the function that returns such a state. Otherwise, taking it would
    take longer and longer.
    """

    defers = False
    """Whether `state_dict` returns the function instead of the state: only while `current_state` takes a state."""

    def frozen_state(self) -> Callable[[], dict[str, Any]]:
        """Return a function that returns the state as it is now, even if it is called later. Take constant time.

        This is possible if items are only appended to a list, or the list is replaced, and no item is changed: the
        function remembers the list and its length.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        state = self.frozen_state()
        return state if self.defers else state()  # type: ignore[return-value]


def current_state(trainer: Trainer) -> dict[str, Any]:
    """Return the content of a checkpoint: Lightning's, and `should_stop`, which Lightning does not save.

    It shares tensors with the training, and states of `GrowingState` are functions: `frozen_copy` keeps it for later,
    and `complete` returns what is written. All ranks must call this together, because the checkpoint contains the
    averages of all ranks.
    """
    with _deferred_states(trainer):
        # As in Trainer.save_checkpoint.
        state: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)  # noqa: SLF001
    return state | {"should_stop": int(trainer.should_stop)}  # may be set before min_epochs and min_steps are reached


@contextmanager
def _deferred_states(trainer: Trainer) -> Iterator[None]:
    growing = [each for each in trainer.callbacks if isinstance(each, GrowingState)]  # type: ignore[attr-defined]
    for callback in growing:
        callback.defers = True
    try:
        yield
    finally:
        for callback in growing:
            callback.defers = False


def frozen_copy(state: dict[str, Any]) -> dict[str, Any]:
    """Copy a `current_state`, because training changes its tensors and counters in place.

    The size of the copy does not depend on the number of epochs: a deep copy of a function is the function itself.
    """
    # Lightning creates the states of its loops anew. Copying them would take as long as copying all other parts.
    copied = copy.deepcopy({key: value for key, value in state.items() if key != "loops"})
    return {key: copied.get(key, value) for key, value in state.items()}


def complete(state: dict[str, Any]) -> dict[str, Any]:
    """Return a `current_state` or a copy of it, with the states that its functions return."""
    callbacks = state.get("callbacks", {})
    states = {key: value() if isinstance(value, FunctionType) else value for key, value in callbacks.items()}
    return state | ({"callbacks": states} if callbacks else {})


def finite_state(trainer: Trainer) -> dict[str, Any]:
    """Return the `current_state`. Raise a NonFiniteError if a weight or optimizer state in it is NaN or infinite."""
    state = current_state(trainer)
    name = first_non_finite(state)
    if name is not None:
        raise NonFiniteError(non_finite_state(trainer.global_step, name))
    return state


def non_finite_state(step: int, name: str) -> str:
    """Return the message for a state in which the tensor `name` is not finite."""
    return f"step {step}: {name} contains NaN or infinite values, no checkpoint is written"


def first_non_finite(state: dict[str, Any]) -> str | None:
    """Return the dotted name of the first weight or optimizer state with NaN or infinity, or None."""
    learned = {name: state[name] for name in _LEARNED if name in state}
    return next((name for name, tensor in _float_tensors(learned, "") if not torch.isfinite(tensor).all()), None)


def _float_tensors(state: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        if state.is_floating_point():
            yield name, state
    elif isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        for key, value in items:
            yield from _float_tensors(value, f"{name}.{key}".lstrip("."))


def resume_at_epoch_start(state: dict[str, Any], trainer: Trainer) -> None:
    """Change a state taken in on_train_epoch_start so that a resumed run starts this epoch.

    Lightning resets its progress counters only after that hook, so a resumed run would skip the epoch.
    """
    progress = state["loops"]["fit_loop"]
    for name, part in progress.items():
        if name.startswith("epoch_loop.") and ".val_loop." not in name:
            _reset_counters(part, "current")
    progress["epoch_loop.batch_progress"]["is_last_batch"] = False
    _reset_counters(progress["epoch_loop.val_loop.batch_progress"], "total")
    if trainer.fit_loop.epoch_loop._should_check_val_epoch():  # noqa: SLF001
        # The loop of a resumed run makes an iteration without a batch before the first one, and counts it.
        progress["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def resume_at_validation(state: dict[str, Any]) -> None:
    """Change a state taken in on_train_batch_end so that a resumed run starts with the validation that is due.

    Unless a validation is unfinished, Lightning would skip the rest of the epoch. Therefore the state counts the first
    validation batch as started, and the training batch as completed.
    """
    progress = state["loops"]["fit_loop"]
    for counters in progress["epoch_loop.batch_progress"].values():
        if isinstance(counters, dict):
            counters["completed"] = counters["processed"]
    validation = progress["epoch_loop.val_loop.batch_progress"]
    _reset_counters(validation, "current")
    validation["total"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    validation["is_last_batch"] = False


def _reset_counters(progress: dict[str, Any], name: str) -> None:
    """Set all counters in the dicts with the key `name`, at any depth, to 0."""
    for key, value in progress.items():
        if key == name:
            value.update(dict.fromkeys(value, 0))
        elif isinstance(value, dict):
            _reset_counters(value, name)
