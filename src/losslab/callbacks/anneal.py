"""Moves a number of the loss over the epochs."""

from collections.abc import Callable
from math import cos, pi
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from losslab.errors import LabError
from losslab.learner import Learner
from losslab.losses.holder import place_of

_SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "cosine": lambda x: (1 - cos(pi * x)) / 2,
    "jump": lambda x: float(x >= 1),
}


class Anneal(Callback):
    """Takes a hyperparameter of the loss from `start` in the first epoch to `end`, and leaves it there.

    The value is a function of the epoch alone, so a resumed run goes on where it was. It is set at the start of each
    epoch and logged as `loss/PARAMETER`. A checkpoint keeps the value of its epoch, under which it is evaluated.

    Args:
        parameter: as under `loss.` on the command line, such as "gamma", or "terms.mae.weight".
        end: the last value.
        start: the first value; None for what the loss was configured with.
        epochs: how many epochs it takes; None for all.
        shape: "linear", "cosine" (slow at both ends) or "jump" (at once, after `epochs`).
    """

    def __init__(
        self,
        parameter: str,
        end: float,
        start: float | None = None,
        epochs: int | None = None,
        shape: str = "linear",
    ) -> None:
        if shape not in _SHAPES or (epochs is not None and (not isinstance(epochs, int) or epochs < 1)):
            message = (
                f"callbacks.anneal needs a shape of {', '.join(_SHAPES)} and epochs of 1 or more: got {shape}, {epochs}"
            )
            raise LabError(message)
        self.parameter, self.start, self.end, self.epochs, self.shape = parameter, start, end, epochs, shape

    def on_fit_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._holder, self._name = place_of(pl_module.loss, self.parameter)
        configured = getattr(self._holder, self._name)
        if self.start is None:
            self.start = configured.item() if isinstance(configured, Tensor) else configured
        for value in (self.end, self.start):
            self._holder.hold(self._name, value)  # refused now, not after hours

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        # A run that is resumed within an epoch does not start it again.
        self._holder.hold(self._name, self.value(trainer.current_epoch, trainer.max_epochs))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Learner) -> None:
        value = self.value(trainer.current_epoch, trainer.max_epochs)
        self._holder.hold(self._name, value)
        for writer in trainer.loggers:
            writer.log_metrics({f"loss/{self.parameter}": value}, trainer.global_step)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Learner, checkpoint: dict[str, Any]) -> None:
        checkpoint["loss_numbers"] = {self.parameter: float(getattr(self._holder, self._name))}

    def value(self, epoch: int, max_epochs: int | None) -> float:
        """The value in an epoch, counted from 0."""
        assert self.start is not None  # noqa: S101 -- for the type checker: on_fit_start saw to it
        whole = self.epochs or max_epochs or 1
        # All epochs are whole - 1 steps from the first to the last; some epochs end before the next one starts.
        steps = whole if self.epochs else max(1, whole - 1)
        return self.start + (self.end - self.start) * _SHAPES[self.shape](min(1.0, epoch / steps))
