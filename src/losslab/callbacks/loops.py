"""Where training stands in Lightning's loops, and what of it their counters have to say for it to go on from there."""

from enum import Enum
from typing import Any

from lightning import Trainer


class Next(Enum):
    """What comes after the step that was just made."""

    BATCH = "the next batch"
    VALIDATION = "a validation, and then the next batch or the end of the epoch"
    END = "the end of the epoch or of the run"


def after_a_step(trainer: Trainer) -> Next:
    """What follows, asked in on_train_batch_end after a step of the optimizer."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher  # noqa: SLF001
    if _stops(trainer) or 0 <= trainer.max_steps <= trainer.global_step or fetcher is None:
        return Next.END
    if loop._should_check_val_fx(fetcher):  # noqa: SLF001
        return Next.VALIDATION
    return Next.END if loop.batch_progress.is_last_batch else Next.BATCH


def is_last(trainer: Trainer) -> bool:
    """Whether the epoch that ends now is the run's last."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    return (
        _stops(trainer)
        or (epochs is not None and 0 <= epochs <= trainer.current_epoch + 1)
        or 0 <= steps <= trainer.global_step
    )


def _stops(trainer: Trainer) -> bool:
    """Whether training is to end early, and is long enough for that."""
    return trainer.should_stop and trainer.fit_loop._can_stop_early  # noqa: SLF001


def begin_with_the_epoch(state: dict[str, Any], trainer: Trainer) -> None:
    """Have who resumes a state of on_train_epoch_start count anew.

    Lightning does so after the hook, and would take the epoch to come for done already.
    """
    progress = state["loops"]["fit_loop"]
    for name, part in progress.items():
        if name.startswith("epoch_loop.") and ".val_loop." not in name:
            _set_to_zero(part, "current")
    progress["epoch_loop.batch_progress"]["is_last_batch"] = False
    _set_to_zero(progress["epoch_loop.val_loop.batch_progress"], "total")
    if trainer.fit_loop.epoch_loop._should_check_val_epoch():  # noqa: SLF001
        # A resumed loop then makes an empty round before the first batch, and counts it.
        progress["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def begin_with_the_validation(state: dict[str, Any]) -> None:
    """Have who resumes a state of on_train_batch_end validate first, as the run was about to.

    Lightning would take the batch for the epoch's last and the epoch for over. Where it stopped half-way through a
    validation, it goes back: so this says that the first batch was begun, and of the training one that all is done.
    """
    progress = state["loops"]["fit_loop"]
    for counts in progress["epoch_loop.batch_progress"].values():
        if isinstance(counts, dict):
            counts["completed"] = counts["processed"]
    validation = progress["epoch_loop.val_loop.batch_progress"]
    _set_to_zero(validation, "current")
    validation["total"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    validation["is_last_batch"] = False


def _set_to_zero(progress: dict[str, Any], name: str) -> None:
    for key, value in progress.items():
        if key == name:
            value.update(dict.fromkeys(value, 0))
        elif isinstance(value, dict):
            _set_to_zero(value, name)


def leave_signals_alone(trainer: Trainer) -> None:
    """Spare training what Lightning does of its own for SIGTERM; asked in `setup`, before it begins.

    Its handler has the processes wait for each other wherever each of them is; and before each batch the first tells
    the others whether it was sent one, and all wait for that.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]  # noqa: SLF001
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]  # noqa: SLF001
