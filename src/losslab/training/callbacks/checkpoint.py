"""Where training stands in Lightning's loops, and what of it their counters have to say for it to go on from there.

What a checkpoint of a run holds, and how it is written.

The best and the newest state of a run, written seldom enough that it costs nothing.
"""

import copy
import logging
import math
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor

from losslab.errors import LabError, NonFiniteError
from losslab.io import atomic
from losslab.models.learner import Learner
from losslab.runs import RunFolder, checkpoint
from losslab.training.callbacks.disk import missing
from losslab.training.distributed import signals
from losslab.training.distributed.consensus import SAVE, Agreement


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


def whole(trainer: Trainer) -> dict[str, Any]:
    """All that a run goes on from. Asked on all processes, as each adds its own.

    Raises:
        NonFiniteError: it holds a NaN or an infinity.
    """
    state = unchecked(trainer)
    bad = first_non_finite(state)
    if bad is not None:
        raise NonFiniteError(
            f"step {trainer.global_step}: {bad} holds NaN or infinite values, no checkpoint is written"
        )
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
        atomic.write_with_checksum(path, lambda file: torch.save(state, file))
    except RuntimeError as error:  # with which torch covers the OSError of a full disk
        cause = error.__context__
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        raise cause or error from None


logger = logging.getLogger(__name__)

_LONG = 1.0
"""Seconds that a signal may wait for a validation to end."""


class BestAndLast(Checkpoint):
    """Keeps checkpoints/best.ckpt by the learner's monitored metric and checkpoints/last.ckpt, and weights.pth.

    Both are written when `every_seconds` have passed since they were written before, and at the end: a run of a
    thousand tiny epochs would otherwise spend its time on saving. Until then a best state waits in memory.
    A state that holds a NaN or an infinity, be it in a weight or in an optimizer's average, is not written.

    last.ckpt is one from which a run goes on as if nothing had happened. So it is taken only where nothing is half
    done: after an optimizer's step and before an epoch. When SIGINT or SIGTERM asks one of a run's processes to end,
    all end after the same step, which is written; during a long validation it is the state from before.

    Args:
        run_dir: the run folder.
        every_seconds: the least time between two writes of a file.
    """

    def __init__(self, run_dir: str, every_seconds: float = 30.0) -> None:
        self.folder = RunFolder(Path(run_dir))
        self.every_seconds = every_seconds
        self.best_values: dict[str, float] = {}
        """All values of the best epoch; empty as long as nothing was validated."""
        self.best_epoch: int | None = None
        self._waiting: dict[str, Any] | None = None
        self._final: dict[str, Any] | None = None
        self._before_validation: dict[str, Any] | None = None
        self._validation = math.inf  # seconds that the last one took
        self._written = 0.0
        self._step = self._saved_step = 0
        self._should_stop = False
        self._watch = signals.Watch()
        self._agreement = Agreement()

    def setup(self, trainer: Trainer, pl_module: Learner, stage: str) -> None:
        if stage == "fit":
            leave_signals_alone(trainer)
            self._watch.start()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Learner, checkpoint: dict[str, Any]) -> None:
        self._should_stop = bool(checkpoint.get("should_stop"))

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        trainer.should_stop |= self._should_stop
        self._step = self._saved_step = trainer.global_step
        self._written = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Learner) -> None:
        if not self._agreement.ask(self._wish(trainer)):
            return
        if trainer.global_step:
            state = whole(trainer)
            begin_with_the_epoch(state, trainer)
            self._write_last(trainer, state)
        self._end_if_asked(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: Any, batch: Any, batch_idx: int
    ) -> None:  # fmt: skip
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if not stepped:
            return
        asked, follows = self._agreement.ask(self._wish(trainer)), after_a_step(trainer)
        kept = follows is Next.VALIDATION and (self._validation > _LONG or trainer.world_size > 1)
        if follows is Next.END or not (asked or kept):
            return
        state = whole(trainer)
        if follows is Next.VALIDATION:
            begin_with_the_validation(state)
        if asked:
            self._write_last(trainer, state)
            self._end_if_asked(trainer)
        else:
            self._before_validation = copy.deepcopy(state) if trainer.is_global_zero else state

    def on_validation_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._validation_began = time.monotonic()
        # Nothing is learnt meanwhile, and it may take long. Several processes have to agree on where to end.
        self._watch.waits = trainer.world_size > 1 or not self._kept(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:  # fmt: skip
        if trainer.world_size == 1 or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self._agreement.ask(_to_end()) > SAVE and self._kept(trainer):
            self._end_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._watch.waits, self._before_validation = True, None
        self._validation = time.monotonic() - self._validation_began
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self._better(pl_module):
            return
        state = unchecked(trainer)
        if first_non_finite(state) is None:
            self.best_values = pl_module.current_values()
            self.best_epoch = trainer.current_epoch + 1
            # Copied: the tensors of the checkpoint are those that training goes on to change.
            self._waiting = copy.deepcopy(state) if trainer.is_global_zero else None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        # Or Lightning would keep from a plateau scheduler the value of an epoch that was resumed half-way.
        trainer.fit_loop._restarting = False  # noqa: SLF001
        if self.best_epoch == trainer.current_epoch + 1:  # training's own averages come after validation
            self.best_values = pl_module.current_values()
        if is_last(trainer):  # now, since afterwards a moving average takes the place of the weights
            state = whole(trainer)
            self._final = copy.deepcopy(state) if trainer.is_global_zero else state

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._agreement.settle(_to_end())
        self._watch.stop()
        final, self._final = self._final or whole(trainer), None  # none where the time was up
        if trainer.is_global_zero:
            self._write_the_end(final | {"trained": reached(trainer, pl_module)})
        self._end_if_asked(trainer)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        self._watch.stop()
        # The best so far is safe to keep whatever happened since; the newest state may be what went wrong.
        self._write_best()
        if isinstance(exception, KeyboardInterrupt):  # during a validation
            self._write_what_was_kept(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"best_values": self.best_values, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_values, self.best_epoch = state_dict["best_values"], state_dict["best_epoch"]

    def _better(self, learner: Learner) -> bool:
        value = learner.values[learner.monitor]
        if math.isnan(value):
            return False
        if self.best_epoch is None:
            return True
        best = self.best_values[learner.monitor]
        return value > best if learner.monitor_mode == "max" else value < best

    def _wish(self, trainer: Trainer) -> int:
        """What this process would have all of them do: see `Agreement`."""
        due = trainer.is_global_zero and time.monotonic() - self._written >= self.every_seconds
        return _to_end() or (SAVE if due else 0)

    def _end_if_asked(self, trainer: Trainer) -> None:
        """End all processes if one was sent a signal; else go on."""
        asked = self._agreement.done()
        if asked > SAVE:
            signals.received = asked - SAVE  # also where another process was sent it
            self._write_what_was_kept(trainer)
            trainer.strategy.barrier()  # whoever watches over them may end the others when one has gone
            raise KeyboardInterrupt

    def _kept(self, trainer: Trainer) -> bool:
        """Whether the state that is validated is on the disk, or can be written any time."""
        return self._before_validation is not None or self._saved_step == trainer.global_step

    def _write_what_was_kept(self, trainer: Trainer) -> None:
        state, self._before_validation = self._before_validation, None
        if state is not None:
            self._write_last(trainer, state)

    def _write_last(self, trainer: Trainer, state: dict[str, Any]) -> None:
        self._saved_step, self._written = trainer.global_step, time.monotonic()
        # The best first: what last.ckpt says was the best must be there. And no sooner: a run that goes on from an
        # older last.ckpt may, on another machine, not find the same epoch to be the best again.
        if trainer.is_global_zero and self._write_best():
            self._write(state, self.folder.last)

    def _write_best(self) -> bool:
        """Write it if it waits → whether it is on the disk."""
        if self._waiting is not None and self._write(self._waiting, self.folder.best):
            self._waiting = None
        return self._waiting is None

    def _write(self, state: dict[str, Any], path: Path) -> bool:
        """Write a checkpoint → whether it could be."""
        try:
            if path == self.folder.last and path.is_file():
                atomic.move(path, self.folder.previous)
            save(state, path)
        except OSError as error:  # a full disk: training is not to end for it, it may be free again in time
            logger.warning("%s was not written (%s): the one before is kept, training goes on", path, error.strerror)
            return False
        return True

    def _write_the_end(self, final: dict[str, Any]) -> None:
        try:
            if self._waiting is not None:
                save(self._waiting, self.folder.best)
            best = final if self.best_epoch is None else self._best()
            save(of_the_network(best), self.folder.weights)
            # Last of all: until then the run can go on from an earlier state and come here again.
            save(final, self.folder.last)
        except OSError as error:
            raise LabError(missing(self.folder, Path(error.filename or self.folder.path), error)) from error
        self._waiting = None
        atomic.remove(self.folder.previous)

    def _best(self) -> dict[str, Any]:
        state = checkpoint.read_best(self.folder)
        if state["epoch"] + 1 != self.best_epoch:  # written when an earlier process failed, later than last.ckpt
            raise LabError(
                f"{self.folder.best} is of epoch {state['epoch'] + 1}, which was not the best again on this "
                f"machine, and the weights of epoch {self.best_epoch} are gone: start a new run"
            )
        return state


def _to_end() -> int:
    """The wish to end where this process was sent a signal; else none."""
    return 0 if signals.received is None else SAVE + signals.received


def reached(trainer: Trainer, learner: Learner) -> dict[str, float]:
    """What training has come to: how long it was, and all values of the best epoch, or without one the newest."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    kept = next((c for c in callbacks if isinstance(c, BestAndLast)), None)
    results: dict[str, float] = {"epochs": trainer.current_epoch, "steps": trainer.global_step}
    if kept is not None and kept.best_epoch is not None:
        results["best_epoch"] = kept.best_epoch
    best = kept.best_values if kept is not None else {}
    return results | (best or {name: value for name, value in learner.values.items() if name.startswith("train/")})
