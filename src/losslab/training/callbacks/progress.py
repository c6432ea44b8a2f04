"""One bar, with the loss and the metric, and lines that stay."""

import logging
import time

from lightning import Trainer
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from losslab.models.learner import Learner
from losslab.training.distributed import worker

logger = logging.getLogger(__name__)

_TINY = 20
"""An epoch of up to this many batches is not worth a bar of its own."""


class ProgressBar(LightningProgressBar):
    """A rich progress bar over the batches of an epoch, or over the epochs where these are tiny.

    Lightning's own bars cost about a millisecond an epoch, which doubles the time of a run of tiny epochs. Every
    epoch leaves a printed line; of more than 30 epochs every 10th, of more than 300 every 100th. Without a terminal
    only the lines appear.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._tiny = False
        self._shown = 0.0
        self._started = 0.0

    def disable(self) -> None:
        """Called by Lightning on all ranks but the first."""
        self.enabled = False

    def enable(self) -> None:
        """Undo `disable`."""
        self.enabled = True

    def setup(self, trainer: Trainer, pl_module: Learner, stage: str) -> None:
        super().setup(trainer, pl_module, stage)  # which disables it on all ranks but the first

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._tiny = trainer.num_training_batches <= _TINY
        self._started = time.perf_counter()
        console = get_console()
        if not self.enabled or not console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[values]}"),
            console=console,
            transient=True,
        )
        total = trainer.max_epochs if self._tiny else trainer.num_training_batches
        self._task = self._bar.add_task("epochs" if self._tiny else "", total=total, values="")
        self._bar.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Learner) -> None:
        if trainer.current_epoch:
            self._line(trainer, pl_module, trainer.current_epoch)
        if self._bar is not None and not self._tiny:
            description = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._bar.reset(self._task, total=trainer.num_training_batches, description=description)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: object, batch: object, batch_idx: int
    ) -> None:  # fmt: skip
        if self._bar is None and worker.tell is None:
            return
        now = time.monotonic()
        if now - self._shown < 0.1:  # faster than the screen is drawn would be for nobody
            return
        self._shown = now
        _tell(trainer, pl_module, trainer.current_epoch + 1, batch_idx + 1)
        if self._bar is None:
            return
        done = trainer.current_epoch if self._tiny else batch_idx + 1
        average = pl_module.averages["train"]["loss"]
        loss = (average.total / average.weight).item()  # of the epoch so far
        self._bar.update(self._task, completed=done, values=f"loss {loss:.4g}  {_newest(pl_module, pl_module.monitor)}")

    def on_validation_start(self, trainer: Trainer, pl_module: Learner) -> None:
        if self._bar is not None and not self._tiny:
            self._bar.update(self._task, completed=trainer.num_training_batches, description="validating")

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._stop()
        _tell(trainer, pl_module, trainer.current_epoch, int(trainer.num_training_batches))
        self._line(trainer, pl_module, trainer.current_epoch, last=True)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, trainer: Trainer, learner: Learner, epoch: int, *, last: bool = False) -> None:
        epochs = max(trainer.max_epochs or 0, epoch)  # a run limited by steps has no number of epochs
        every = 1 if epochs <= 30 else 10 if epochs <= 300 else 100
        if self.enabled and (epoch % every == 0 or last):
            seconds = time.perf_counter() - self._started
            shown = ("train/loss", f"train/{learner.train_metric}", learner.monitor)
            logger.info(
                "epoch %*d/%d  %s  %6.1f s",
                len(str(epochs)),
                epoch,
                epochs,
                _newest(learner, *(name for name in shown if name in learner.updated_this_epoch)),
                seconds,
            )


def _tell(trainer: Trainer, learner: Learner, epoch: int, batch: int) -> None:
    """Let whoever watches this process know how far it is."""
    if worker.tell is not None:
        value = learner.values.get(learner.monitor)
        metric = {"metric": learner.monitor, "mode": learner.monitor_mode, "value": value}
        batches = int(trainer.num_training_batches)
        worker.tell({"epoch": epoch, "epochs": trainer.max_epochs, "batch": batch, "batches": batches} | metric)


def _newest(learner: Learner, *names: str) -> str:
    return "  ".join(f"{name} {learner.values[name]:.4g}" for name in names if name in learner.values)
