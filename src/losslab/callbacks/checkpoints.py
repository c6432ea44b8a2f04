"""The best and the newest state of a run, written seldom enough that it costs nothing."""

import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from losslab.errors import NonFiniteError
from losslab.learner import Learner
from losslab.runs import RunFolder


class BestAndLast(Checkpoint):
    """Keeps checkpoints/best.ckpt by the learner's monitored metric and checkpoints/last.ckpt, and weights.pth.

    A file is written when `every_seconds` have passed since it was written before, and at the end: a run of a thousand
    tiny epochs would otherwise spend its time on saving. A best state that is not due yet waits in memory until it is.
    A state that holds a NaN or an infinity, be it in a weight or in an optimizer's average, is not written.

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
        self._written: dict[Path, float] = {}
        self._last_step = -1

    def on_validation_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self._better(pl_module):
            return
        state = trainer._checkpoint_connector.dump_checkpoint()  # noqa: SLF001 -- what trainer.save_checkpoint writes
        if first_non_finite(state) is None:
            self.best_values = pl_module.current()
            self.best_epoch = trainer.current_epoch + 1
            # Copied: the tensors of the checkpoint are those that training goes on to change.
            self._waiting = copy.deepcopy(state) if trainer.is_global_zero else None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if self.best_epoch == trainer.current_epoch + 1:  # training's own averages come after validation
            self.best_values = pl_module.current()
        if not trainer.is_global_zero:
            return  # every rank remembers which epoch was the best, one writes
        if self._due(self.folder.best):
            self._write_best(trainer)
        # In its last epoch, since afterwards a moving average takes the place of the weights that were trained.
        if self._due(self.folder.last) or is_last(trainer):
            self._write_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        if self._last_step != trainer.global_step:
            self._write_last(trainer)
        self._write_best(trainer)
        path = self.folder.best if self.best_epoch is not None else self.folder.last
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        prefix = "network."
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        torch.save(weights, self.folder.weights)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        # The best so far is safe to keep whatever happened since; the newest state may be what went wrong.
        self._write_best(trainer)

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
        return time.monotonic() - self._written.setdefault(path, time.monotonic()) >= self.every_seconds

    def _write_last(self, trainer: Trainer) -> None:
        state = trainer._checkpoint_connector.dump_checkpoint()  # noqa: SLF001
        bad = first_non_finite(state)
        if bad is not None:
            message = (
                f"step {trainer.global_step}: {bad} holds NaN or infinite values, {self.folder.last} is not written"
            )
            raise NonFiniteError(message)
        self._write(trainer, state, self.folder.last)
        self._last_step = trainer.global_step

    def _write_best(self, trainer: Trainer) -> None:
        if self._waiting is not None:
            self._write(trainer, self._waiting, self.folder.best)
            self._waiting = None

    def _write(self, trainer: Trainer, state: dict[str, Any], path: Path) -> None:
        trainer.strategy.save_checkpoint(state, path)
        self._written[path] = time.monotonic()


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
