"""TensorBoard's event file on a disk that may be full. Imports torch's TensorBoard, which takes long."""

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

logger = logging.getLogger(__name__)


class Records:
    """A file of records, of which each is there whole or not at all. What cannot be written is left out and said once.

    Args:
        path: of the file, which is made with the first record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._first = b""
        self._size = 0
        self._told = False

    def write(self, record: bytes) -> None:
        """Append a record, if there is room; the first one, which says what the file is, with the next if need be."""
        if not self._size:
            self._first = self._first or record
            record = record if record is self._first else self._first + record
        try:
            self._append(record)
        except OSError as error:
            with suppress(OSError):  # nobody reads on behind half a record
                os.truncate(self.path, self._size)
            if not self._told:
                self._told = True
                why = f"{self.path} is not written ({error.strerror})"
                logger.warning("%s: training goes on, TensorBoard lacks what comes until there is room", why)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""

    def _append(self, record: bytes) -> None:
        with self.path.open("ab", buffering=0) as file:
            if file.write(record) < len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(record)


class _Events(EventFileWriter):  # type: ignore[misc]
    def add_event(self, event: Any) -> None:
        """Called first by the constructor, before anything was written."""
        records = self._async_writer._writer  # noqa: SLF001 -- whose errors end a thread with a traceback
        if not isinstance(records._writer, Records):  # noqa: SLF001
            records._writer = Records(Path(self._file_name))  # noqa: SLF001
        super().add_event(event)


class _File(FileWriter):
    def __init__(self, folder: str, queue: int, seconds: float, suffix: str) -> None:
        self.event_writer = _Events(folder, queue, seconds, suffix)


class Writer(SummaryWriter):
    """torch's writer, which no full disk disturbs."""

    def _get_file_writer(self) -> FileWriter:
        own: Any = self  # torch declares both to be None
        if own.all_writers is None or own.file_writer is None:
            own.file_writer = _File(self.log_dir, self.max_queue, self.flush_secs, self.filename_suffix)
            own.all_writers = {own.file_writer.get_logdir(): own.file_writer}
            if self.purge_step is not None:
                start = SessionLog(status=SessionLog.START)
                own.file_writer.add_event(Event(step=self.purge_step, session_log=start))
                self.purge_step = None
        writer: FileWriter = own.file_writer
        return writer
