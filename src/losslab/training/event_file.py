"""A TensorBoard event file on a disk that may be full. Imports torch.utils.tensorboard, which takes long."""

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

logger = logging.getLogger(__name__)


class RobustSummaryWriter(SummaryWriter):
    """A SummaryWriter that skips events for which the disk has no space."""

    def _get_file_writer(self) -> FileWriter:
        untyped: Any = self  # torch annotates both attributes as None
        if untyped.all_writers is None or untyped.file_writer is None:
            untyped.file_writer = _FileWriter(self.log_dir, self.max_queue, self.flush_secs, self.filename_suffix)
            untyped.all_writers = {untyped.file_writer.get_logdir(): untyped.file_writer}
            if self.purge_step is not None:
                start = SessionLog(status=SessionLog.START)
                untyped.file_writer.add_event(Event(step=self.purge_step, session_log=start))
                self.purge_step = None
        writer: FileWriter = untyped.file_writer
        return writer


class _FileWriter(FileWriter):
    def __init__(self, folder: str, queue: int, seconds: float, suffix: str) -> None:
        self.event_writer = _EventFileWriter(folder, queue, seconds, suffix)


class _EventFileWriter(EventFileWriter):  # type: ignore[misc]
    _async_writer: Any

    def add_event(self, event: Any) -> None:
        """Write an event. The first call, which the base class makes in its constructor, replaces its file and thread.

        A full disk would end that thread with a traceback, and it would go on after the run.
        """
        if not isinstance(self._async_writer, RecordWriter):
            self._async_writer.close()
            self._async_writer = RecordWriter(RecordFile(Path(self._file_name)))
        super().add_event(event)


class RecordFile:
    """A file of records, created when the first record is written. Records that cannot be written are skipped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._first = b""
        self._size = 0
        self._warned = False
        self._lock = Lock()

    def write(self, record: bytes) -> None:
        """Append a record if there is space on the disk; otherwise log a warning, once.

        The first record is a header that the file needs. If it does not fit, it is written with the next record.
        """
        with self._lock:  # several threads write: that of training, and the timer of the logger
            self._write(record)

    def _write(self, record: bytes) -> None:
        if not self._size:
            self._first = self._first or record
            record = record if record is self._first else self._first + record
        try:
            with self.path.open("ab", buffering=0) as file:
                if file.write(record) < len(record):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301 -- handled below, like an error of write
            self._size += len(record)
        except OSError as error:
            with suppress(OSError):  # readers would stop at an incomplete record
                os.truncate(self.path, self._size)
            if not self._warned:
                self._warned = True
                reason = f"{self.path} is not written ({error.strerror})"
                logger.warning("%s: training continues, TensorBoard gets no values until there is space", reason)

    def flush(self) -> None:
        """Do nothing: records are not buffered."""

    def close(self) -> None:
        """Do nothing: no file is open."""
