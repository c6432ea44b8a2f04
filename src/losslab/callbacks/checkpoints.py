"""The best and the newest state of a run, written seldom enough that it costs nothing."""

import copy
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor

from losslab import durable, resuming, signals
from losslab.errors import LabError, NonFiniteError
from losslab.learner import Learner
from losslab.runs import RunFolder

logger = logging.getLogger(__name__)


class BestAndLast(Checkpoint):
    """Keeps checkpoints/best.ckpt by the learner's monitored metric and checkpoints/last.ckpt, and weights.pth.

    A file is written when `every_seconds` have passed since it was written before, and at the end: a run of a thousand
    tiny epochs would otherwise spend its time on saving. A best state that is not due yet waits in memory until it is.
    A state that holds a NaN or an infinity, be it in a weight or in an optimizer's average, is not written.

    last.ckpt is one from which a run goes on as if nothing had happened. So it is taken only where nothing is half
    done: after an optimizer's step that no validation follows, and before an epoch.

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
        self._written: dict[Path, float] = {}
        self._step = 0
        self._watch = signals.Watch()

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        if trainer.world_size == 1:
            self._watch.start()
        self._step = trainer.global_step
        self._written = dict.fromkeys((self.folder.best, self.folder.last), time.monotonic())

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Learner) -> None:
        ended = signals.received is not None and trainer.world_size == 1
        if trainer.is_global_zero and trainer.current_epoch and (ended or self._due(self.folder.last)):
            self._write_last(trainer, before_an_epoch=True)
        if ended:
            raise KeyboardInterrupt

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: Any, batch: Any, batch_idx: int
    ) -> None:  # fmt: skip
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        ended = signals.received is not None
        if not stepped or trainer.world_size > 1 or not (ended or self._due(self.folder.last)):
            return
        if _something_follows(trainer):
            return
        self._write_last(trainer)
        if ended:
            raise KeyboardInterrupt

    def on_validation_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._watch.waits = False  # it may take long, and nothing is learnt: what was saved before it counts

    def on_validation_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._watch.waits = True
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self._better(pl_module):
            return
        state = _state(trainer)
        if first_non_finite(state) is None:
            self.best_values = pl_module.current()
            self.best_epoch = trainer.current_epoch + 1
            # Copied: the tensors of the checkpoint are those that training goes on to change.
            self._waiting = copy.deepcopy(state) if trainer.is_global_zero else None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        # Or Lightning would keep from a plateau scheduler the value of an epoch that was resumed half-way.
        trainer.fit_loop._restarting = False  # noqa: SLF001
        if self.best_epoch == trainer.current_epoch + 1:  # training's own averages come after validation
            self.best_values = pl_module.current()
        if not trainer.is_global_zero:
            return  # every rank remembers which epoch was the best, one writes
        if self._due(self.folder.best):
            self._write_best()
        if is_last(trainer):  # now, since afterwards a moving average takes the place of the weights that were trained
            self._final = copy.deepcopy(self._checked(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._watch.stop()
        if not trainer.is_global_zero:
            return
        final, self._final = self._final or self._checked(trainer), None  # none where the time was up
        final["trained"] = reached(trainer, pl_module)
        try:
            if self._waiting is not None:
                _save(self._waiting, self.folder.best)
            best = resuming.read(self.folder.best) if self.best_epoch is not None else final
            _save(_of_the_network(best["state_dict"]), self.folder.weights)
            # Last of all: until then the run can go on from an earlier state and come here again.
            _save(final, self.folder.last)
        except OSError as error:
            message = (
                f"cannot write {error.filename or self.folder.path} ({error.strerror}): free some space, then "
                f"python train.py resume={self.folder.path}"
            )
            raise LabError(message) from error
        self._waiting = None
        durable.remove(self.folder.previous)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        self._watch.stop()
        # The best so far is safe to keep whatever happened since; the newest state may be what went wrong.
        self._write_best()

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

    def _due(self, path: Path) -> bool:
        return time.monotonic() - self._written[path] >= self.every_seconds

    def _write_last(self, trainer: Trainer, *, before_an_epoch: bool = False) -> None:
        state = self._checked(trainer)
        if before_an_epoch:
            _forget_the_epoch(state["loops"]["fit_loop"])
            if trainer.fit_loop.epoch_loop._should_check_val_epoch():  # noqa: SLF001
                # A resumed loop then makes an empty round before the first batch, and counts it.
                state["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
        # The best first: what last.ckpt says was the best must be there.
        if self._write_best():
            self._write(state, self.folder.last)

    def _checked(self, trainer: Trainer) -> dict[str, Any]:
        state = _state(trainer)
        bad = first_non_finite(state)
        if bad is not None:
            message = (
                f"step {trainer.global_step}: {bad} holds NaN or infinite values, {self.folder.last} is not written"
            )
            raise NonFiniteError(message)
        return state

    def _write_best(self) -> bool:
        """Write it if it waits → whether it is on the disk."""
        if self._waiting is not None and self._write(self._waiting, self.folder.best):
            self._waiting = None
        return self._waiting is None

    def _write(self, state: dict[str, Any], path: Path) -> bool:
        """Write a checkpoint → whether it could be."""
        self._written[path] = time.monotonic()
        try:
            if path == self.folder.last and path.is_file():
                durable.move(path, self.folder.previous)
            _save(state, path)
        except OSError as error:  # a full disk: training is not to end for it, it may be free again in time
            logger.warning("%s was not written (%s): the one before is kept, training goes on", path, error.strerror)
            return False
        return True


def reached(trainer: Trainer, learner: Learner) -> dict[str, float]:
    """What training has come to: how long it was, and all values of the best epoch, or without one the newest."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    kept = next((c for c in callbacks if isinstance(c, BestAndLast)), None)
    results: dict[str, float] = {"epochs": trainer.current_epoch, "steps": trainer.global_step}
    if kept is not None and kept.best_epoch is not None:
        results["best_epoch"] = kept.best_epoch
    best = kept.best_values if kept is not None else {}
    return results | (best or {name: value for name, value in learner.values.items() if name.startswith("train/")})


def _of_the_network(state: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "network."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _state(trainer: Trainer) -> dict[str, Any]:
    state: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint()  # noqa: SLF001 -- what save_checkpoint writes
    return state


def _save(state: dict[str, Any], path: Path) -> None:
    try:
        durable.write(path, lambda file: torch.save(state, file))
    except RuntimeError as error:  # with which torch covers the OSError of a full disk
        cause = error.__context__
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        raise cause or error from None


def _forget_the_epoch(progress: dict[str, Any]) -> None:
    """Begin to count anew: Lightning does so after the hook, and would take the epoch to come for done already."""
    for name, part in progress.items():
        if name.startswith("epoch_loop.") and ".val_loop." not in name:
            _set_to_zero(part, "current")
    progress["epoch_loop.batch_progress"]["is_last_batch"] = False
    _set_to_zero(progress["epoch_loop.val_loop.batch_progress"], "total")


def _set_to_zero(progress: dict[str, Any], name: str) -> None:
    for key, value in progress.items():
        if key == name:
            value.update(dict.fromkeys(value, 0))
        elif isinstance(value, dict):
            _set_to_zero(value, name)


def _something_follows(trainer: Trainer) -> bool:
    """Whether this batch is followed by more than the next one: a validation, or the end of the epoch or the run."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher  # noqa: SLF001
    if loop.batch_progress.is_last_batch or trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step:
        return True
    return fetcher is None or loop._should_check_val_fx(fetcher)  # noqa: SLF001


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


def is_last(trainer: Trainer) -> bool:
    """Whether the epoch that ends now is the run's last."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    return (
        trainer.should_stop
        or (epochs is not None and 0 <= epochs <= trainer.current_epoch + 1)
        or 0 <= steps <= trainer.global_step
    )
