"""Prints to the terminal without control characters, and continues when stdout or stderr is closed.

Text from untrusted files may contain control characters, which move the cursor, change colours or reverse the direction
of writing. So all text passes through `printable`, which escapes them.
"""

import codecs
import io
import logging
import os
import re
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ASCII = {
    "─": "-", "━": "-", "×": "x", "→": "->", "≥": ">=", "≤": "<=", "·": "*", "…": "...", "–": "-", "²": "^2", "±": "+-",
}  # fmt: skip
_format_warning = warnings.formatwarning


def _replace_by_ascii(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks by similar ASCII or "?". This is a handler for `register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error("losslab.plain", _replace_by_ascii)


def printable(text: str) -> str:
    """Escape the control characters of a text, except tab and newline."""
    return _CONTROL_CHARACTERS.sub(lambda match: ascii(match[0])[1:-1], text)


class PrintableFormatter(logging.Formatter):
    """Formats log records with control characters escaped. Log files use it too: a terminal may show them later."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, with its traceback if it has one."""
        return printable(super().format(record))


def print_traceback(error: BaseException) -> None:
    """Print a traceback to stderr, with control characters escaped."""
    sys.stderr.write(printable("".join(traceback.format_exception(error))))


class _ForgivingFile(io.FileIO):
    """An output file that ignores write errors."""

    def write(self, content: Any, /) -> int:
        """Write the content, or drop it if writing fails. Return the number of bytes that were written or dropped."""
        size = memoryview(content).nbytes
        try:
            written: int | None = super().write(content)
        except OSError:  # the reader of the pipe has exited, or the disk is full
            return size
        return size if written is None else written  # None: a non-blocking pipe is full


def ignore_output_errors() -> None:
    """Make stdout and stderr drop output that they cannot write, as with `| head -1` or `> /dev/full`.

    Call this only in commands that write their results to files. The file train.log still contains all log messages.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed by `>&-`
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 -- open until exit
        elif stream is getattr(sys, f"__{name}__") and type(stream) is io.TextIOWrapper:  # not in notebooks
            setattr(sys, name, _forgiving(stream))


def _forgiving(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    raw = _ForgivingFile(stream.fileno(), "wb", closefd=False)
    with suppress(OSError):
        stream.flush()
    # `python -u` has no buffer between the text stream and the file.
    buffer: Any = raw if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def escape_unprintable_output() -> None:
    """Make stdout and stderr print characters that their encoding lacks as similar ASCII, and escape warnings."""
    if warnings.formatwarning is _format_warning:
        warnings.formatwarning = lambda *arguments, **options: printable(_format_warning(*arguments, **options))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="losslab.plain")


class ConsoleHandler(logging.Handler):
    """Prints log messages above the progress bar. Warnings and errors are in colour; long lines are not wrapped."""

    def __init__(self) -> None:
        super().__init__()
        escape_unprintable_output()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message: to stderr if it is an error, otherwise to stdout."""
        is_error = record.levelno >= logging.ERROR
        style = "red" if is_error else "yellow" if record.levelno >= logging.WARNING else None
        from rich import get_console  # noqa: PLC0415 -- slow to import, and not needed by --help
        from rich.console import Console  # noqa: PLC0415

        console = Console(stderr=True) if is_error else get_console()
        console.print(printable(self.format(record)), style=style, markup=False, highlight=False, soft_wrap=True)
