"""The callback that saves the best and the newest state of a run, so that it can be resumed bit-exactly."""

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint, LambdaCallback
from torch import Tensor

from losslab.errors import LabError
from losslab.io import atomic
from losslab.models.learner import Learner
from losslab.runs import RunFolder, resume_checkpoint
from losslab.training import weights
from losslab.training.callbacks import checkpoint_state
from losslab.training.callbacks.disk import cannot_write_message
from losslab.training.distributed.signals import SAVE, SharedRequest, SignalHandler

logger = logging.getLogger(__name__)

_LONG_VALIDATION = 1.0
"""If the last validation took more seconds than this, a signal ends the next validation before its end."""


class BestAndLastCheckpoint(Checkpoint):
    """Writes checkpoints/best.ckpt, checkpoints/last.ckpt and weights.pth.

    The learner's monitored metric decides which state is the best. Checkpoints are written at most every
    `every_seconds` seconds and at the end, because saving after each of a thousand tiny epochs would take most of the
    time. Until then the best state is kept in memory. A state with NaN or infinity in a weight or in the optimizer's
    state is not written.

    A run resumed from last.ckpt ends as if it had not been interrupted. Therefore last.ckpt contains only states from
    after an optimizer step or from the start of an epoch. When a rank receives SIGINT or SIGTERM, all ranks end after
    the same step, and the state after it is written. In a long validation, the state before the validation is written.
    """

    def __init__(self, run_dir: str, every_seconds: float = 30.0) -> None:
        self.folder = RunFolder(Path(run_dir))
        self.every_seconds = every_seconds
        self.best_values: dict[str, float] = {}
        """The values of all metrics in the best epoch; empty before the first validation."""
        self.best_epoch: int | None = None
        """The number of the best epoch, counted from 1."""
        self._best_weights: dict[str, Any] | None = None
        self.signals = SignalHandler()
        self._weights = MeasuredWeights()
        self._request = SharedRequest()
        self._unwritten_best: dict[str, Any] | None = None
        self._final: dict[str, Any] | None = None
        self._before_validation: dict[str, Any] | None = None
        self._validation_seconds = math.inf  # the time that the last validation took
        self._written_at = 0.0
        self._step = self._saved_step = 0
        self._should_stop = False
        self._newest_is_best = False  # whether the newest validation gave the best value

    @property
    def state_key(self) -> str:
        """The name of this callback's state in checkpoints, the same as in earlier versions."""
        return "BestAndLast"

    def setup(self, trainer: Trainer, pl_module: Learner, stage: str) -> None:
        if stage == "fit":
            # Lightning's handler of SIGTERM would enter a barrier at an arbitrary point of the step, and before each
            # batch all ranks would wait for a broadcast of whether rank 0 received SIGTERM.
            trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]  # noqa: SLF001
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]  # noqa: SLF001
            self.signals.install()
        self._weights.setup(trainer)
        self._weights.remember(pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Learner, checkpoint: dict[str, Any]) -> None:
        self._should_stop = bool(checkpoint.get("should_stop"))

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        trainer.should_stop |= self._should_stop
        self._step = self._saved_step = trainer.global_step
        self._written_at = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Learner) -> None:
        if not self._request.submit(self._request_code(trainer)):
            return
        if trainer.global_step:
            state = self._state(trainer)
            checkpoint_state.resume_at_epoch_start(state, trainer)
            self._write_last(trainer, state)
        self._end_if_requested(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Learner, *_: Any) -> None:
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        requested = self._request.submit(self._request_code(trainer))
        keeps_validated = self._validation_seconds > _LONG_VALIDATION or trainer.world_size > 1
        if not (requested or keeps_validated):
            return
        phase = next_phase(trainer)
        if phase == "end" or not (requested or phase == "validation"):
            return
        state = self._state(trainer)
        if phase == "validation":
            checkpoint_state.resume_at_validation(state)
        if requested:
            self._write_last(trainer, state)
            self._end_if_requested(trainer)
        else:
            self._before_validation = checkpoint_state.frozen_copy(state) if trainer.is_global_zero else state

    def on_validation_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._validation_began = time.monotonic()
        # A validation changes no weights and may be long: a single process ends at once, several ranks agree first.
        self.signals.deferred = trainer.world_size > 1 or not self._can_end_in_validation(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx + 1 == trainer.num_val_batches[0]:
            self._weights.remember(pl_module)
        if trainer.world_size == 1 or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self._request.submit(self.signals.request()) > SAVE and self._can_end_in_validation(trainer):
            self._end_if_requested(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self.signals.deferred, self._before_validation = True, None
        self._validation_seconds = time.monotonic() - self._validation_began
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._newest_is_best = self._is_better(pl_module)
        if not self._newest_is_best:
            return
        state = checkpoint_state.current_state(trainer)
        if checkpoint_state.first_non_finite(state) is None:
            self.best_values = pl_module.current_values()
            self.best_epoch = trainer.current_epoch + 1
            problem = (
                "the weights change after they were validated, so best.ckpt contains other weights than those of its "
                "metrics: change them in on_train_batch_end"
            )
            self._weights.compare(pl_module, problem, state["state_dict"])
            # A copy, because training changes the tensors of the state in place.
            self._unwritten_best = checkpoint_state.frozen_copy(state) if trainer.is_global_zero else None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        # Otherwise, in an epoch that was resumed midway, Lightning does not pass the metric to ReduceLROnPlateau.
        trainer.fit_loop._restarting = False  # noqa: SLF001
        if self.best_epoch == trainer.current_epoch + 1:
            # The training averages are published after validation. A later validation of this epoch may be worse.
            self.best_values = pl_module.current_values() | ({} if self._newest_is_best else self.best_values)
        if is_last_epoch(trainer):  # now, because WeightAveraging replaces the weights afterwards
            state = self._state(trainer)
            self._final = checkpoint_state.frozen_copy(state) if trainer.is_global_zero else state

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._request.submit_and_wait(self.signals.request())
        self.signals.uninstall()
        final, self._final = self._final or self._state(trainer), None  # `_final` is None after max_time
        if trainer.is_global_zero:
            self._write_final(final | {"trained": training_results(trainer, pl_module)})
        self._weights.remember(pl_module, final["state_dict"])
        self._end_if_requested(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: Learner) -> None:
        problem = (
            "the weights change after training, which has no effect, because they are saved already: change them in "
            "on_train_batch_end"
        )
        self._weights.compare(pl_module, problem)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        problem = "the weights change before the test, so its metrics are of other weights than those saved"
        if batch_idx == 0:
            self._weights.compare(pl_module, problem)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        self.signals.uninstall()
        # The best state was checked when it was taken; the current state may be the cause of the exception.
        self._write_best()
        if isinstance(exception, KeyboardInterrupt):  # during a validation
            self._write_state_before_validation(trainer)

    def take_best_weights(self) -> dict[str, Any] | None:
        """Return the `loaded_parts` of best.ckpt once after training; None if they are not in memory."""
        best, self._best_weights = self._best_weights, None
        return best

    def state_dict(self) -> dict[str, Any]:
        return {"best_values": self.best_values, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_values, self.best_epoch = state_dict["best_values"], state_dict["best_epoch"]

    def _state(self, trainer: Trainer) -> dict[str, Any]:
        """Return the state to write."""
        return checkpoint_state.finite_state(trainer)

    def _is_better(self, learner: Learner) -> bool:
        value = learner.values[learner.monitor]
        if self.best_epoch is None:
            return not math.isnan(value)
        best = self.best_values[learner.monitor]
        return value > best if learner.monitor_mode == "max" else value < best

    def _request_code(self, trainer: Trainer) -> int:
        """Return the code that this rank submits to `SharedRequest`: of a signal, else SAVE if a checkpoint is due."""
        due = trainer.is_global_zero and time.monotonic() - self._written_at >= self.every_seconds
        return self.signals.request() or (SAVE if due else 0)

    def _end_if_requested(self, trainer: Trainer) -> None:
        """End training on all ranks if one of them received a signal."""
        code = self._request.clear()
        if code > SAVE:
            self.signals.received = code - SAVE  # the signal may have been sent to another rank
            self._write_state_before_validation(trainer)
            trainer.strategy.barrier()  # torchrun or srun may kill the other ranks once one has exited
            raise KeyboardInterrupt

    def _can_end_in_validation(self, trainer: Trainer) -> bool:
        """Return whether the state that is being validated was written or is kept in memory."""
        return self._before_validation is not None or self._saved_step == trainer.global_step

    def _write_state_before_validation(self, trainer: Trainer) -> None:
        state, self._before_validation = self._before_validation, None
        if state is not None:
            self._write_last(trainer, state)

    def _write_last(self, trainer: Trainer, state: dict[str, Any]) -> None:
        self._saved_step, self._written_at = trainer.global_step, time.monotonic()
        # best.ckpt is written first, because last.ckpt refers to it. It is written only together with last.ckpt,
        # because a run resumed from an older last.ckpt on another machine may get another best epoch.
        if trainer.is_global_zero and self._write_best():
            self._write(state, self.folder.last)

    def _write_best(self) -> bool:
        """Write the best state if it is not written yet, and return whether it is on the disk."""
        if self._unwritten_best is not None and self._write(self._unwritten_best, self.folder.best):
            self._unwritten_best = None
        return self._unwritten_best is None

    def _write(self, state: dict[str, Any], path: Path) -> bool:
        """Write a checkpoint and return whether this succeeded."""
        try:
            if path == self.folder.last and path.is_file():
                atomic.move(path, self.folder.previous)
            write_checkpoint(state, path)
        except OSError as error:  # the disk may be full only for some time
            logger.warning("%s was not written (%s): training continues, another follows later", path, error.strerror)
            return False
        return True

    def _write_final(self, final: dict[str, Any]) -> None:
        try:
            if self._unwritten_best is not None:
                write_checkpoint(self._unwritten_best, self.folder.best)
            best = final if self.best_epoch is None else self._unwritten_best or self._read_best()
            write_checkpoint(weights.entries_below("network.", best["state_dict"]), self.folder.weights)
            # Last, so that a run killed before this line resumes from an earlier state and repeats all of this.
            write_checkpoint(final, self.folder.last)
        except OSError as error:
            path = Path(error.filename or self.folder.path)
            raise LabError(cannot_write_message(self.folder, path, error)) from error
        self._unwritten_best, self._best_weights = None, weights.loaded_parts(best)
        atomic.remove(self.folder.previous)

    def _read_best(self) -> dict[str, Any]:
        state = resume_checkpoint.read_best(self.folder)
        if state["epoch"] + 1 != self.best_epoch:  # an earlier process wrote it and failed before it wrote last.ckpt
            raise LabError(
                f"{self.folder.best} was saved in epoch {state['epoch'] + 1}, but on this machine the best epoch is "
                f"{self.best_epoch}, whose weights are not saved: start a new run"
            )
        return state


class MeasuredWeights:
    """Copies the weights and the buffers of the network, and logs a warning if they differ later.

    It costs nothing if all callbacks are of losslab or Lightning, or on other ranks than the first.
    """

    def __init__(self) -> None:
        self._copies: dict[str, Tensor] = {}
        self._callbacks = ""

    def setup(self, trainer: Trainer) -> None:
        """Find the callbacks of the user."""
        kinds = [type(each) for each in trainer.callbacks]  # type: ignore[attr-defined]
        libraries = ("losslab.", "lightning.")
        own = [kind.__name__ for kind in kinds if not kind.__module__.startswith(libraries) or kind is LambdaCallback]
        self._callbacks = ", ".join(own) if trainer.is_global_zero else ""

    def remember(self, learner: Learner, state: Mapping[str, Any] | None = None) -> None:
        """Remember the weights of a learner, or those in a `state_dict` of it."""
        if self._callbacks:
            self._copies = {name: tensor.detach().clone() for name, tensor in _tensors(learner, state).items()}

    def compare(self, learner: Learner, problem: str, state: Mapping[str, Any] | None = None) -> None:
        """Log the problem if the weights of the learner, or in the `state_dict`, are not those last remembered."""
        if not self._callbacks:
            return
        pairs = [(self._copies[name], tensor) for name, tensor in _tensors(learner, state).items()]
        if not all(torch.allclose(old.to(new), new, rtol=0, atol=0, equal_nan=True) for old, new in pairs):
            logger.warning("callbacks (%s): %s", self._callbacks, problem)
            self._callbacks = ""  # once is enough


def _tensors(learner: Learner, state: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
    saved = learner.network.state_dict(prefix="network.") | dict(learner.named_parameters())
    chosen = saved if state is None else {name: state[name] for name in saved}
    return {name: value for name, value in chosen.items() if isinstance(value, Tensor)}  # not an extra state


def find_checkpoint_callback(trainer: Trainer) -> BestAndLastCheckpoint | None:
    """Return the trainer's BestAndLastCheckpoint, or None."""
    return next((each for each in trainer.checkpoint_callbacks if isinstance(each, BestAndLastCheckpoint)), None)


def training_results(trainer: Trainer, learner: Learner) -> dict[str, float]:
    """Return the numbers of epochs and steps, and the metrics of the best epoch, or else the last training metrics."""
    callback = find_checkpoint_callback(trainer)
    results: dict[str, float] = {"epochs": trainer.current_epoch, "steps": trainer.global_step}
    if callback is not None and callback.best_epoch is not None:
        results["best_epoch"] = callback.best_epoch
    best = callback.best_values if callback is not None else {}
    values = best or {name: value for name, value in learner.values.items() if not name.startswith("val/")}
    return results | {name: value for name, value in values.items() if name not in results}


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a `current_state`, or a part of one, atomically and with its checksum.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        atomic.write_with_checksum(path, lambda file: torch.save(checkpoint_state.complete(state), file))
    except RuntimeError as error:  # on a full disk, torch raises this instead of the OSError
        cause = error.__context__
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        raise cause or error from None


def next_phase(trainer: Trainer) -> Literal["batch", "validation", "end"]:
    """Return what follows the current optimizer step: a batch, a validation, or the end of the epoch or run.

    Call this in on_train_batch_end.
    """
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher  # noqa: SLF001
    if _is_last_step(trainer) or fetcher is None:
        return "end"
    if loop._should_check_val_fx(fetcher):  # noqa: SLF001
        return "validation"
    return "end" if loop.batch_progress.is_last_batch else "batch"


def is_last_epoch(trainer: Trainer) -> bool:
    """Return whether the current epoch is the last one. Call this in on_train_epoch_end."""
    epochs = trainer.max_epochs
    return _is_last_step(trainer) or (epochs is not None and 0 <= epochs <= trainer.current_epoch + 1)


def _is_last_step(trainer: Trainer) -> bool:
    """Return whether max_steps is reached, or `should_stop` is set and min_epochs and min_steps are reached."""
    stops_early = trainer.should_stop and trainer.fit_loop._can_stop_early  # noqa: SLF001
    return stops_early or 0 <= trainer.max_steps <= trainer.global_step
