"""`BaseLearner`: what the learner of a run and that of a fused group have in common."""

import inspect
from collections.abc import Callable
from typing import Any

from lightning import LightningModule
from torch import Tensor

from losslab.data.batch import Batch, DataSpec
from losslab.models.metrics import MONITOR, monitor_mode
from losslab.models.schedules import RunLength, run_length


def with_known_signature(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Store the signature of a function with it: Lightning asks for it in each step, which would take a while."""
    step.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]
    return step


class BaseLearner(LightningModule):
    """Base class of the LightningModules: the monitored metric, and when the metrics of a split start and end.

    A subclass sets `spec` and implements `_evaluation_step`, `_reset_metrics` and `_log_epoch`.
    """

    spec: DataSpec

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this about fifty times a step, and nn.Module.__setattr__ would check each time for parameters.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def monitor(self) -> str:
        """Name of the metric for checkpoints, early stopping, tuning and comparison. It is never the loss."""
        return f"val/{MONITOR[self.spec.task]}"

    @property
    def monitor_mode(self) -> str:
        """Either "min" or "max": whether lower or higher values of the monitored metric are better."""
        return monitor_mode(self.spec.task)

    @with_known_signature
    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._evaluation_step(batch, batch_idx, "val")

    @with_known_signature
    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._evaluation_step(batch, batch_idx, "test")

    def _evaluation_step(self, batch: Batch, batch_idx: int, split: str) -> Tensor:
        """Update loss and metrics, and return the raw outputs for the callbacks."""
        raise NotImplementedError

    def on_fit_start(self) -> None:
        self._reset_metrics("train", "val")

    def on_validation_start(self) -> None:
        self._reset_metrics("val")

    def on_test_start(self) -> None:
        self._reset_metrics("test")

    def _reset_metrics(self, *splits: str) -> None:
        """Prepare the metrics of these splits, on the device of the learner."""
        raise NotImplementedError

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test")

    def _log_epoch(self, split: str) -> None:
        """Compute the metrics of a split over all batches, and store them as the newest."""
        raise NotImplementedError

    def schedule_length(self, interval: str) -> RunLength:
        """Return the length of the run in steps of a scheduler, whose `interval` is "step" or "epoch"."""
        if self.trainer.train_dataloader is None:
            self.trainer.fit_loop.setup_data()
        return run_length(self.trainer, int(self.trainer.num_training_batches), interval)
