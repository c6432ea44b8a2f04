"""A TensorBoard event file on a disk that may be full. The import takes long, because of torch.utils.tensorboard."""

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


class RobustSummaryWriter(SummaryWriter):
    """A SummaryWriter that skips events that do not fit on the disk."""

    def _get_file_writer(self) -> FileWriter:
        own: Any = self  # torch annotates both attributes as None
        if own.all_writers is None or own.file_writer is None:
            own.file_writer = _FileWriter(self.log_dir, self.max_queue, self.flush_secs, self.filename_suffix)
            own.all_writers = {own.file_writer.get_logdir(): own.file_writer}
            if self.purge_step is not None:
                start = SessionLog(status=SessionLog.START)
                own.file_writer.add_event(Event(step=self.purge_step, session_log=start))
                self.purge_step = None
        writer: FileWriter = own.file_writer
        return writer


class _FileWriter(FileWriter):
    def __init__(self, folder: str, queue: int, seconds: float, suffix: str) -> None:
        self.event_writer = _EventFileWriter(folder, queue, seconds, suffix)


class _EventFileWriter(EventFileWriter):  # type: ignore[misc]
    def add_event(self, event: Any) -> None:
        """Add an event. The first call, in the constructor, replaces the writer of records."""
        records = self._async_writer._writer  # noqa: SLF001 -- its errors would end the thread with a traceback
        if not isinstance(records._writer, RecordFile):  # noqa: SLF001
            records._writer = RecordFile(Path(self._file_name))  # noqa: SLF001
        super().add_event(event)


class RecordFile:
    """A file of complete records, created with the first record. Records that cannot be written are skipped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._first = b""
        self._size = 0
        self._warned = False

    def write(self, record: bytes) -> None:
        """Append a record if there is room; otherwise log a warning, once.

        The first record is a header that the file needs: until there is room, it is written before the next record.
        """
        if not self._size:
            self._first = self._first or record
            record = record if record is self._first else self._first + record
        try:
            with self.path.open("ab", buffering=0) as file:
                if file.write(record) < len(record):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301 -- as if write had
            self._size += len(record)
        except OSError as error:
            with suppress(OSError):  # readers would stop at an incomplete record
                os.truncate(self.path, self._size)
            if not self._warned:
                self._warned = True
                reason = f"{self.path} is not written ({error.strerror})"
                logger.warning("%s: training continues, TensorBoard gets no values until there is room", reason)

    def flush(self) -> None:
        """Do nothing: records are not buffered."""

    def close(self) -> None:
        """Do nothing: no file is open."""
