"""The best and the newest state of a run, written seldom enough that it costs nothing."""

import copy
import logging
import math
import time
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from losslab import durable, resuming, signals
from losslab.agreement import SAVE, Agreement
from losslab.callbacks import loops, states
from losslab.callbacks.loops import Next
from losslab.callbacks.room import missing
from losslab.errors import LabError
from losslab.learner import Learner
from losslab.runs import RunFolder

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
            loops.leave_signals_alone(trainer)
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
            state = states.whole(trainer)
            loops.begin_with_the_epoch(state, trainer)
            self._write_last(trainer, state)
        self._end_if_asked(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: Any, batch: Any, batch_idx: int
    ) -> None:  # fmt: skip
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if not stepped:
            return
        asked, follows = self._agreement.ask(self._wish(trainer)), loops.after_a_step(trainer)
        kept = follows is Next.VALIDATION and (self._validation > _LONG or trainer.world_size > 1)
        if follows is Next.END or not (asked or kept):
            return
        state = states.whole(trainer)
        if follows is Next.VALIDATION:
            loops.begin_with_the_validation(state)
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
        state = states.unchecked(trainer)
        if states.first_non_finite(state) is None:
            self.best_values = pl_module.current()
            self.best_epoch = trainer.current_epoch + 1
            # Copied: the tensors of the checkpoint are those that training goes on to change.
            self._waiting = copy.deepcopy(state) if trainer.is_global_zero else None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        # Or Lightning would keep from a plateau scheduler the value of an epoch that was resumed half-way.
        trainer.fit_loop._restarting = False  # noqa: SLF001
        if self.best_epoch == trainer.current_epoch + 1:  # training's own averages come after validation
            self.best_values = pl_module.current()
        if loops.is_last(trainer):  # now, since afterwards a moving average takes the place of the weights
            state = states.whole(trainer)
            self._final = copy.deepcopy(state) if trainer.is_global_zero else state

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._agreement.settle(_to_end())
        self._watch.stop()
        final, self._final = self._final or states.whole(trainer), None  # none where the time was up
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
                durable.move(path, self.folder.previous)
            states.save(state, path)
        except OSError as error:  # a full disk: training is not to end for it, it may be free again in time
            logger.warning("%s was not written (%s): the one before is kept, training goes on", path, error.strerror)
            return False
        return True

    def _write_the_end(self, final: dict[str, Any]) -> None:
        try:
            if self._waiting is not None:
                states.save(self._waiting, self.folder.best)
            best = final if self.best_epoch is None else self._best()
            states.save(states.of_the_network(best), self.folder.weights)
            # Last of all: until then the run can go on from an earlier state and come here again.
            states.save(final, self.folder.last)
        except OSError as error:
            raise LabError(missing(self.folder, Path(error.filename or self.folder.path), error)) from error
        self._waiting = None
        durable.remove(self.folder.previous)

    def _best(self) -> dict[str, Any]:
        state = resuming.best(self.folder)
        if state["epoch"] + 1 != self.best_epoch:  # written when an earlier process failed, later than last.ckpt
            message = (
                f"{self.folder.best} is of epoch {state['epoch'] + 1}, which was not the best again on this "
                f"machine, and the weights of epoch {self.best_epoch} are gone: start a new run"
            )
            raise LabError(message)
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
