"""The terminal as logging sees it."""

import codecs
import io
import logging
import sys

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


def make_printable() -> None:
    """Have a terminal that lacks some letters (PYTHONIOENCODING=ascii) show others in their place."""
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
        console.print(self.format(record), style=style, markup=False, highlight=False, soft_wrap=True)
