"""The best and the newest state of a run, written seldom enough that it costs nothing."""

import copy
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint

from losslab.errors import NonFiniteError
from losslab.learner import Learner
from losslab.runs import RunFolder


class BestAndLast(Checkpoint):
    """Keeps checkpoints/best.ckpt by the learner's monitored metric and checkpoints/last.ckpt, and weights.pth.

    Each is written when `every_seconds` have passed since it was written before, and at the end: a run of a thousand
    tiny epochs would otherwise spend its time on saving. A best state that is not due yet waits in memory. Nothing
    that holds a NaN or an infinity is written.

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

    def on_validation_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self._better(pl_module.values[pl_module.monitor], pl_module):
            self.best_values = {k: v for k, v in pl_module.values.items() if k.startswith("val/")}
            self.best_epoch = trainer.current_epoch + 1
            # Copied: the tensors of the checkpoint are those that training goes on to change.
            self._waiting = copy.deepcopy(trainer._checkpoint_connector.dump_checkpoint())  # noqa: SLF001 -- what save_checkpoint writes
            if self._due(self.folder.best):
                self._write_best(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if self._due(self.folder.last):
            self._write_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._write_last(trainer)
        self._write_best(trainer)
        path = self.folder.best if self.folder.best.is_file() else self.folder.last
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        torch.save({k.removeprefix("network."): v for k, v in state.items()}, self.folder.weights)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        # The best so far is safe to keep whatever happened since; the newest state may be what went wrong.
        self._write_best(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"best_values": self.best_values, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_values, self.best_epoch = state_dict["best_values"], state_dict["best_epoch"]

    def _better(self, value: float, learner: Learner) -> bool:
        if value != value:  # noqa: PLR0124 -- NaN is never better
            return False
        if self.best_epoch is None:
            return True
        best = self.best_values[learner.monitor]
        return value > best if learner.monitor_mode == "max" else value < best

    def _due(self, path: Path) -> bool:
        return time.monotonic() - self._written.setdefault(path, time.monotonic()) >= self.every_seconds

    def _write_last(self, trainer: Trainer) -> None:
        self._write(trainer, trainer._checkpoint_connector.dump_checkpoint(), self.folder.last)  # noqa: SLF001

    def _write_best(self, trainer: Trainer) -> None:
        if self._waiting is not None:
            self._write(trainer, self._waiting, self.folder.best)
            self._waiting = None

    def _write(self, trainer: Trainer, checkpoint: dict[str, Any], path: Path) -> None:
        for name, tensor in checkpoint["state_dict"].items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                message = f"{name} holds NaN or infinite values: {path.name} was not written"
                raise NonFiniteError(message)
        trainer.strategy.save_checkpoint(checkpoint, path)
        self._written[path] = time.monotonic()
