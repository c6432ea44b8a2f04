"""The callback that records the weights of a small network in each epoch, for a drawing of the loss surface."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

from losslab.io.tables import write_csv
from losslab.models.learner import Learner
from losslab.runs import RunFolder
from losslab.training.callbacks.checkpoint_state import GrowingState
from losslab.training.callbacks.disk import BestEffortWriter

_Row = tuple[int, int, Tensor]
"""The epoch, the step, and all weights (P,), or (M, P) of M networks, on the CPU."""


class WeightTrajectory(GrowingState):
    """Writes path.csv: the exact values of all weights before the first step and after every epoch.

    Networks of more than `weights` weights are not recorded. Until the end of the run, at most `rows` rows are kept in
    memory: if there are more, only every second epoch is kept, then every fourth and so on, and always the last one.
    """

    def __init__(self, run_dir: str, weights: int = 100, rows: int = 10_000) -> None:
        self.folder = RunFolder(Path(run_dir))
        self._writer = BestEffortWriter(self.folder)
        self.weights, self.rows = weights, rows
        self._names: list[str] = []
        self._every = 1
        self._kept: list[_Row] = []

    @property
    def state_key(self) -> str:
        """The name of this callback's state in checkpoints, the same as in earlier versions."""
        return "Path"

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        parameters = list(pl_module.network.named_parameters())
        count = sum(parameter.numel() for _, parameter in parameters)
        self._enabled = trainer.is_global_zero and 0 < count <= self.weights
        if self._enabled:
            self._parameters = [parameter.detach() for _, parameter in parameters]
            self._names = [element for name, weight in parameters for element in element_names(name, weight.shape)]
            if not self._kept:  # a resumed run has rows from its checkpoint
                self._record(0, trainer.global_step)

    def frozen_state(self) -> Callable[[], dict[str, Any]]:
        every, kept, count = self._every, self._kept, len(self._kept)

        def state() -> dict[str, Any]:
            weights = [torch.stack([row[2] for row in kept[:count]])] if count else []
            return {"every": every, "places": [row[:2] for row in kept[:count]], "weights": weights}

        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        positions, weights = state_dict["places"], state_dict["weights"]
        # Earlier versions wrote a tensor (epochs, *shape) for each parameter.
        table = torch.cat([weight.flatten(1) for weight in weights], 1) if positions else ()
        # They also wrote the newest row twice, if it was of an epoch that is kept.
        rows = {epoch: (epoch, step, row) for (epoch, step), row in zip(positions, table, strict=True)}
        self._every, self._kept = state_dict["every"], [*rows.values()]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if self._enabled:
            self._record(trainer.current_epoch + 1, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._writer.require(self.folder.weight_trajectory, self._write)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        with self._writer.during_exception(self.folder.weight_trajectory):
            self._write()

    def _record(self, epoch: int, step: int) -> None:
        row = (epoch, step, torch.cat([parameter.flatten() for parameter in self._parameters]).cpu())
        self._kept, self._every = with_row(self._kept, row, self._every, self.rows)

    def _write(self) -> None:
        if not self._kept:
            return
        weights = torch.stack([row[2] for row in self._kept])
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32))  # NumPy has no bfloat16
        # astype(str) writes the shortest decimals that are parsed as the same number.
        decimals = weights.numpy().astype(str).tolist()
        rows = ([epoch, step, *row] for (epoch, step, _), row in zip(self._kept, decimals, strict=True))
        write_csv(self.folder.weight_trajectory, ["epoch", "step", *self._names], rows)


def with_row(rows: list[_Row], row: _Row, every: int, largest: int) -> tuple[list[_Row], int]:
    """Add the row of the newest epoch to rows of every `every`-th epoch. Return the rows, and the new `every`.

    If there are more than `largest`, those of every second epoch are left out. The newest row is kept until the next.
    """
    if rows and rows[-1][0] % every:
        rows = rows[:-1]  # in a copy, see `GrowingState`
    rows.append(row)
    if len(rows) > largest:
        every *= 2
        rows = [each for each in rows if each is row or each[0] % every == 0]
    return rows, every


def element_names(name: str, shape: torch.Size) -> list[str]:
    """Return a name for each element of a tensor `name`, in row-major order: weight.0.0, weight.0.1, ..."""
    indices = torch.cartesian_prod(*(torch.arange(size) for size in shape)).view(-1, len(shape)).tolist()
    return [".".join([name, *map(str, index)]) for index in indices]
