"""TensorBoard's event file on a disk that may be full. Imports torch's TensorBoard, which takes long.

What a run writes for TensorBoard: one event file, flushed by time.
"""

import logging
import time
from collections import deque
from collections.abc import Mapping
from threading import Lock, Timer
from typing import TYPE_CHECKING

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger, writing straight into the run folder.

    Lightning flushes to disk whenever it logs, and TensorBoard wakes a thread for every value, which then stands in
    the training thread's way: together more than the training of a tiny epoch. Here values wait in memory, at most
    `flush_secs`, and are written together. There is no hparams.yaml either: the run folder has a config.json.

    Args:
        run_dir: the run folder, which is the log folder itself.
        flush_secs: the longest that TensorBoard waits for a value.
    """

    def __init__(self, run_dir: str, flush_secs: float = 5.0) -> None:
        super().__init__(run_dir, name="", version="", default_hp_metric=False, max_queue=1000)
        self.flush_secs = flush_secs
        self._waiting: deque[tuple[dict[str, float], int | None, float]] = deque()
        self._timer: Timer | None = None
        self._writing = Lock()

    def forget_after(self, step: int) -> None:
        """Have TensorBoard show nothing that an earlier process logged after this step: it is logged again."""
        self._kwargs["purge_step"] = step + 1

    @property
    def log_dir(self) -> str:
        """The run folder."""
        return str(self.root_dir).rstrip("/")

    @property
    @rank_zero_experiment
    def experiment(self) -> "SummaryWriter":
        """The writer of torch, which goes on where the disk is full."""
        if self._experiment is None:
            from losslab.training.event_file import Writer  # noqa: PLC0415 -- not before something is logged

            self._experiment = Writer(log_dir=self.log_dir, **self._kwargs)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take values to be written soon, as of now."""
        self._waiting.append(({name: float(value) for name, value in metrics.items()}, step, time.time()))
        if self._timer is None:
            self._timer = Timer(self.flush_secs, self._write)
            self._timer.daemon = True
            self._timer.start()

    def save(self) -> None:
        """Nothing to do: values are written by time, and by `finalize` at the end."""

    @rank_zero_only
    def finalize(self, status: str) -> None:  # noqa: ARG002 -- Lightning's signature
        """Write what waits, but stay open: what testing logs after training belongs into the same file."""
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting or self._experiment is not None:
            self._write()

    def _write(self) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 -- likewise

        self._timer = None  # first: what is logged from here on may have to start the next
        writer = self.experiment._get_file_writer()  # noqa: SLF001 -- add_scalar writes one event a value
        with self._writing:
            while self._waiting:
                metrics, step, now = self._waiting.popleft()
                values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
                writer.add_summary(Summary(value=values), step, now)
            self.experiment.flush()
