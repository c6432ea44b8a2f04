"""The callback that shows a progress bar, logs epochs, and sends the progress to the parent process."""

import logging
import time

from lightning import Trainer
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from losslab.models.learner import Learner
from losslab.training.distributed import worker

logger = logging.getLogger(__name__)

_FEW_BATCHES = 20
"""If an epoch has at most this many batches, the bar counts epochs."""
_REFRESH_SECONDS = 0.1


class ProgressBar(LightningProgressBar):
    """Shows a progress bar over the batches of each epoch, or over the epochs if these are tiny, and logs epochs.

    Lightning's own bars take about a millisecond per epoch, which doubles the time of a run of tiny epochs. Each epoch
    is logged; in a run of more than 30 epochs only every 10th, and of more than 300 only every 100th and the last one.
    Without a terminal there is no bar.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._counts_epochs = False
        self._updated_at = 0.0
        self._started = 0.0

    def disable(self) -> None:
        """Show and log nothing; Lightning calls this on all ranks except rank 0."""
        self.enabled = False

    def enable(self) -> None:
        """Undo `disable`."""
        self.enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._counts_epochs = trainer.num_training_batches <= _FEW_BATCHES
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
        total = trainer.max_epochs if self._counts_epochs else trainer.num_training_batches
        self._task = self._bar.add_task("epochs" if self._counts_epochs else "", total=total, values="")
        self._bar.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Learner) -> None:
        if trainer.current_epoch:  # the values of the previous epoch are complete only now
            self._log_epoch(trainer, pl_module, trainer.current_epoch)
        if self._bar is not None and not self._counts_epochs:
            description = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._bar.reset(self._task, total=trainer.num_training_batches, description=description)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: object, batch: object, batch_idx: int
    ) -> None:  # fmt: skip
        now = time.monotonic()
        if now - self._updated_at < _REFRESH_SECONDS:
            return
        self._updated_at = now
        _report_progress(trainer, pl_module, trainer.current_epoch + 1, batch_idx + 1)
        if self._bar is None:
            return
        completed = trainer.current_epoch if self._counts_epochs else batch_idx + 1
        average = pl_module.averages["train"]["loss"]
        loss = (average.total / average.weight).item()  # the average over the epoch so far
        values = f"loss {loss:.4g}  {_format_values(pl_module, pl_module.monitor)}"
        self._bar.update(self._task, completed=completed, values=values)

    def on_validation_start(self, trainer: Trainer, pl_module: Learner) -> None:
        if self._bar is not None and not self._counts_epochs:
            self._bar.update(self._task, completed=trainer.num_training_batches, description="validating")

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._stop()
        _report_progress(trainer, pl_module, trainer.current_epoch, int(trainer.num_training_batches))
        self._log_epoch(trainer, pl_module, trainer.current_epoch, last=True)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _log_epoch(self, trainer: Trainer, learner: Learner, epoch: int, *, last: bool = False) -> None:
        epochs = max(trainer.max_epochs or 0, epoch)  # max_epochs is -1 or None in a run limited by steps
        if self.enabled and (epoch % epochs_per_line(epochs) == 0 or last):
            names = ("train/loss", f"train/{learner.train_metric}", learner.monitor)
            values = _format_values(learner, *(name for name in names if name in learner.updated_this_epoch))
            seconds = time.perf_counter() - self._started
            logger.info("epoch %*d/%d  %s  %6.1f s", len(str(epochs)), epoch, epochs, values, seconds)


def epochs_per_line(epochs: int) -> int:
    """Return how often an epoch is logged in a run of so many epochs: each one, every 10th or every 100th."""
    return 1 if epochs <= 30 else 10 if epochs <= 300 else 100


def _report_progress(trainer: Trainer, learner: Learner, epoch: int, batch: int) -> None:
    """Send epoch, batch and monitored metric to the parent process, if this process is a worker."""
    worker.report_progress({
        "epoch": epoch,
        "epochs": trainer.max_epochs,
        "batch": batch,
        "batches": int(trainer.num_training_batches),
        "metric": learner.monitor,
        "mode": learner.monitor_mode,
        "value": learner.values.get(learner.monitor),
    })  # fmt: skip


def _format_values(learner: Learner, *names: str) -> str:
    return "  ".join(f"{name} {learner.values[name]:.4g}" for name in names if name in learner.values)
