"""Callbacks that change the loss over the epochs: annealing of a hyperparameter, and deferred class weights."""

import logging
from collections.abc import Callable
from math import cos, inf, pi
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from losslab.errors import LabError
from losslab.losses.base import ClassLoss, Loss
from losslab.losses.hyperparameters import find_hyperparameter
from losslab.losses.imbalance import effective_number
from losslab.models.learner import Learner
from losslab.models.schedules import epochs_of_run, is_limited

logger = logging.getLogger("losslab")

_SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "cosine": lambda x: (1 - cos(pi * x)) / 2,
    "jump": lambda x: float(x >= 1),
}
"""The fraction of the change from `start` to `end`, as a function of the fraction of `epochs` that has passed."""


class Anneal(Callback):
    """Moves a hyperparameter of the loss from `start` in the first epoch to `end`.

    The value depends only on the epoch, so a resumed run continues correctly. It is set at the start of each epoch and
    logged as `loss/PARAMETER`. A checkpoint contains the value at its epoch, which `losslab evaluate` uses.

    Args:
        parameter: the config key below `loss`, such as "gamma" or "terms.mae.weight".
        end: the last value.
        start: the first value; None for the configured value.
        epochs: the number of epochs until `end`; if None, `end` is reached in the last epoch of the run.
        shape: "linear", "cosine" (slow at both ends) or "jump" (at once, after `epochs`).
    """

    def __init__(
        self, parameter: str, end: float, start: float | None = None, epochs: int | None = None, shape: str = "linear"
    ) -> None:
        if shape not in _SHAPES or (epochs is not None and (not isinstance(epochs, int) or epochs < 1)):
            raise LabError(
                f"callbacks.anneal needs a shape ({', '.join(_SHAPES)}) and epochs ≥ 1: got {shape}, {epochs}"
            )
        self.parameter, self.start, self.end, self.epochs, self.shape = parameter, start, end, epochs, shape

    def on_fit_start(self, trainer: Trainer, pl_module: Learner) -> None:
        if self.epochs is None and not is_limited(trainer):
            raise LabError(
                "callbacks.anneal has no number of epochs: set callbacks.anneal.epochs or trainer.max_epochs"
            )
        self.prepare(pl_module.loss)

    def prepare(self, loss: Loss) -> None:
        """Find the hyperparameter in the loss, and check its first and last value.

        Raises:
            LabError: the loss has no such hyperparameter, or a value is outside its range.
        """
        self._loss, self._name = find_hyperparameter(loss, self.parameter)
        configured = getattr(self._loss, self._name)
        if self.start is None:
            self.start = configured.item() if isinstance(configured, Tensor) else configured
        for value in (self.end, self.start):  # an invalid value raises now, not in the last epoch
            self._loss.set_hyperparameter(self._name, value)

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._run_epochs = epochs_of_run(trainer)
        if self.epochs is not None and self._run_epochs is not None and self.epochs >= self._run_epochs:
            logger.warning(
                "callbacks.anneal: %s reaches %g after epochs=%d, but this run has %d epochs and ends with %.4g: "
                "leave epochs out to reach it in the last one", self.parameter, self.end, self.epochs,
                self._run_epochs, self.value(self._run_epochs - 1, None),
            )  # fmt: skip
        # Lightning does not call on_train_epoch_start when a run resumes within an epoch.
        self._loss.set_hyperparameter(self._name, self.value(trainer.current_epoch, self._run_epochs))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Learner) -> None:
        value = self.value(trainer.current_epoch, self._run_epochs)
        self._loss.set_hyperparameter(self._name, value)
        for each in trainer.loggers:
            each.log_metrics({f"loss/{self.parameter}": value}, trainer.global_step)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Learner, checkpoint: dict[str, Any]) -> None:
        checkpoint.setdefault("loss_numbers", {})[self.parameter] = float(getattr(self._loss, self._name))

    def value(self, epoch: int, run_epochs: int | None) -> float:
        """Return the value of the hyperparameter in an epoch, counted from 0, of a run with so many epochs."""
        assert self.start is not None  # noqa: S101 -- for the type checker: set in on_fit_start
        # `end` is reached in the first epoch after `epochs`, or by default in the last epoch.
        steps = self.epochs or max(1, (run_epochs or 1) - 1)
        return self.start + (self.end - self.start) * _SHAPES[self.shape](min(1.0, epoch / steps))


class DeferredReweighting(Callback):
    """From a given epoch on, weights classes by the inverse of their effective number (DRW of Cao et al. 2019).

    Before this epoch the loss has the configured class weights, by default none; from it on, rare classes have larger
    weights. The paper lowers the learning rate at the same epoch. All classification losses that accept class weights
    are supported, and so are losses composed of these. The weights depend only on the epoch, so a resumed run continues
    correctly. They also apply to the validation loss, but the test loss has the configured weights.

    Args:
        start: the first weighted epoch, counted from 0, such as 160, or a fraction of all epochs, such as 0.8.
        beta: β in the effective number, see `losslab.losses.imbalance.effective_number`.

    Raises:
        LabError: start is neither an epoch nor a fraction, or beta is outside [0, 1).
    """

    def __init__(self, start: float = 0.8, beta: float = 0.9999) -> None:
        valid = 0 <= start < inf and (start < 1 or start == int(start))
        if isinstance(start, bool) or not valid or not 0 <= beta < 1:
            raise LabError(
                f"callbacks.deferred_reweighting needs a start (an epoch ≥ 0, or a fraction of all epochs below 1) "
                f"and beta in [0, 1): got start={start}, beta={beta}"
            )
        self.start, self.beta = start, beta
        self._configured: dict[ClassLoss, Tensor | None] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._configured = {
            loss: loss.weight
            for loss in pl_module.loss.modules()
            if isinstance(loss, ClassLoss) and loss.supports_class_weights
        }
        counts = getattr(trainer.datamodule, "class_counts", None)  # type: ignore[attr-defined]
        if not self._configured or counts is None:
            raise LabError(
                f"callbacks.deferred_reweighting sets class weights, but {type(pl_module.loss).__name__} on these "
                f"data accepts none: choose a loss such as ldam or cross_entropy, or leave the callback out"
            )
        if 0 < self.start < 1 and not is_limited(trainer):
            raise LabError(
                "callbacks.deferred_reweighting.start is a fraction of all epochs: set trainer.max_epochs, or an epoch"
            )
        self._weight = effective_number(counts, self.beta).to(pl_module.device)

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        epochs = epochs_of_run(trainer)
        self._first = first_epoch(self.start, epochs or 0)
        if epochs is not None and self._first >= epochs:
            logger.warning(
                "callbacks.deferred_reweighting: the first weighted epoch is %d, counted from 0, but this run has %d: "
                "no epoch is weighted", self._first, epochs,
            )  # fmt: skip
        # Lightning does not call on_train_epoch_start when a run resumes within an epoch.
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Learner) -> None:
        for loss, configured in self._configured.items():
            loss.weight = self._weight if trainer.current_epoch >= self._first else configured

    def on_fit_end(self, trainer: Trainer, pl_module: Learner) -> None:
        # The test after training must compute the same loss as `losslab evaluate`, which uses no callbacks.
        for loss, configured in self._configured.items():
            loss.weight = configured


def first_epoch(start: float, epochs: int) -> int:
    """Return the first weighted epoch, counted from 0, of a run with so many epochs."""
    return int(start) if start >= 1 else round(start * epochs)
