"""The terminal as logging sees it."""

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

from rich import get_console
from rich.console import Console

_PLAIN = {
    "─": "-",
    "━": "-",
    "×": "x",
    "→": "->",
    "≥": ">=",
    "≤": "<=",
    "·": "*",
    "…": "...",
    "–": "-",
    "²": "^2",
    "±": "+-",
}


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error("losslab.plain", _plain)


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text without what would move the cursor, change colours or turn the writing around: it may be a stranger's."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class Printable(logging.Formatter):
    """A log of printable text, for files too: somebody may look at them in a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a message, or more with a traceback."""
        return printable(super().format(record))


def show_trace(error: BaseException) -> None:
    """Print a traceback on stderr, whose messages may have a stranger's words in them."""
    sys.stderr.write(printable("".join(traceback.format_exception(error))))


class _Outlived(io.FileIO):
    """A terminal, pipe or file that may go before the run does: what it does not take is left out."""

    def write(self, content: Any, /) -> int:
        """Write it if somebody takes it → how much of it is done with."""
        size = memoryview(content).nbytes
        try:
            taken: int | None = super().write(content)
        except OSError:  # its reader has gone, or its disk is full
            return size
        return size if taken is None else taken  # none would be taken without waiting


def outlive_readers() -> None:
    """Have output that cannot be written (`| head -1`, `> /dev/full`) be no error: train.log has all of it.

    Only for commands whose output is no more than news.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed (`>&-`)
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 -- as long as the process
        elif stream is getattr(sys, f"__{name}__") and type(stream) is io.TextIOWrapper:  # else a test's or notebook's
            setattr(sys, name, _outliving(stream))


def _outliving(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    raw = _Outlived(stream.fileno(), "wb", closefd=False)
    with suppress(OSError):
        stream.flush()
    # Unbuffered (python -u) it has no buffer between.
    buffer: Any = raw if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


_format_warning = warnings.formatwarning


def _printable_warning(*arguments: Any, **options: Any) -> str:
    return printable(_format_warning(*arguments, **options))


def make_printable() -> None:
    """Have a terminal that lacks some letters (PYTHONIOENCODING=ascii) show others in their place.

    Warnings of libraries, which may have a stranger's words in them, are made printable too.
    """
    if warnings.formatwarning is _format_warning:
        warnings.formatwarning = _printable_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="losslab.plain")


class ConsoleHandler(logging.Handler):
    """Prints messages above a progress bar, if there is one, and never breaks a line: paths and commands stay whole."""

    def __init__(self) -> None:
        super().__init__()
        make_printable()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message; warnings and errors in colour."""
        style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else None
        console = Console(stderr=True) if record.levelno >= logging.ERROR else get_console()
        console.print(printable(self.format(record)), style=style, markup=False, highlight=False, soft_wrap=True)
