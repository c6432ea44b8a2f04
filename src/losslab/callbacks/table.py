"""A table that grows by a row an epoch."""

import csv
import io
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from losslab import durable
from losslab.callbacks.room import Files

_PAUSE = 1.0
"""Seconds between two attempts to write a table whole: of a long run of tiny epochs each is many rows."""


class Table:
    """A CSV file in which a row is as soon as it was added; on a full disk it is written whole when there is room.

    Args:
        path: of the file, which begins anew with the rows that there are.
        columns: their names; what else a row holds is left out.
        rows: so far. What is added is added here.
        files: speaks of what cannot be written.
    """

    def __init__(self, path: Path, columns: list[str], rows: list[dict[str, Any]], files: Files) -> None:
        self.path, self.columns, self.rows = path, columns, rows
        self._files = files
        self._file: IO[str] | None = None
        self._attempt()

    def add(self, row: dict[str, Any]) -> None:
        """Take a row, and write it if that is possible."""
        self.rows.append(row)
        if self._file is None:
            if time.monotonic() - self._tried >= _PAUSE:
                self._attempt()
            return
        line, file = self._lines([row]), self._file
        if not self._files.attempt(self.path, lambda: file.write(line)):
            self._drop()  # half of the row may be there

    def close(self) -> None:
        """Have the file hold all rows.

        Raises:
            OSError: it cannot be written.
        """
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # over a network this may be the first that is heard of a full disk
                file.close()
                return
        self._write()

    def _attempt(self) -> None:
        self._tried = time.monotonic()
        if self._files.attempt(self.path, self._begin_anew):
            return
        self._drop()

    def _begin_anew(self) -> None:
        self._write()
        # Line-buffered: a row is with the operating system as soon as it is written.
        self._file = self.path.open("a", encoding="utf-8", newline="", buffering=1)

    def _write(self) -> None:
        header = self._lines([{name: name for name in self.columns}])
        durable.put(self.path, (header + self._lines(self.rows)).encode())

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

    def _lines(self, rows: list[dict[str, Any]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, extrasaction="ignore", lineterminator="\n").writerows(rows)
        return text.getvalue()
