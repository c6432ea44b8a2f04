"""The TensorBoard logger of a run, which writes one event file into the run folder at intervals."""

import time
from collections import deque
from collections.abc import Mapping
from threading import Lock, Timer
from typing import TYPE_CHECKING

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger, which writes directly into the run folder.

    Lightning flushes the file at every log call, and TensorBoard wakes a thread for every value, which takes longer
    than a tiny epoch. This logger collects values in memory and writes them at most `flush_secs` later. It writes no
    hparams.yaml, because the run folder has a config.json.
    """

    def __init__(self, run_dir: str, flush_secs: float = 5.0) -> None:
        super().__init__(run_dir, name="", version="", default_hp_metric=False, max_queue=1000)
        self.flush_secs = flush_secs
        self._queue: deque[tuple[dict[str, float], int | None, float]] = deque()
        self._timer: Timer | None = None
        self._lock = Lock()

    def purge_after(self, step: int) -> None:
        """Let TensorBoard hide the existing values of later steps, which a resumed run logs again."""
        self._kwargs["purge_step"] = step + 1

    @property
    def log_dir(self) -> str:
        """The run folder."""
        return str(self.root_dir).rstrip("/")

    @property
    @rank_zero_experiment
    def experiment(self) -> "SummaryWriter":
        """The writer of the event file; it tolerates a full disk."""
        if self._experiment is None:
            from losslab.training.event_file import RobustSummaryWriter  # noqa: PLC0415 -- only if a value is logged

            self._experiment = RobustSummaryWriter(log_dir=self.log_dir, **self._kwargs)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Collect values and the current time, to be written later."""
        self._queue.append(({name: float(value) for name, value in metrics.items()}, step, time.time()))
        if self._timer is None:
            self._timer = Timer(self.flush_secs, self._write)
            self._timer.daemon = True
            self._timer.start()

    def save(self) -> None:
        """Do nothing: values are written by a timer and by `finalize`."""

    @rank_zero_only
    def finalize(self, status: str) -> None:  # noqa: ARG002 -- Lightning's signature
        """Write the collected values. The file stays open, because the test after training logs to it too."""
        timer = self._timer
        if timer is not None:
            timer.cancel()
            timer.join()
        if self._queue or self._experiment is not None:
            self._write()

    def _write(self) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 -- only if a value is logged

        self._timer = None  # before the values are read: values logged from now on need another timer
        writer = self.experiment._get_file_writer()  # noqa: SLF001 -- add_scalar would write an event for each value
        with self._lock:
            while self._queue:
                metrics, step, now = self._queue.popleft()
                values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
                writer.add_summary(Summary(value=values), step, now)
            self.experiment.flush()
