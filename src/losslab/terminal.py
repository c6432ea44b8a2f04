"""The terminal as logging sees it."""

import logging

from rich import get_console
from rich.console import Console


class ConsoleHandler(logging.Handler):
    """Prints messages above a progress bar, if there is one, and never breaks a line: paths and commands stay whole."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message; warnings and errors in colour."""
        style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else None
        console = Console(stderr=True) if record.levelno >= logging.ERROR else get_console()
        console.print(self.format(record), style=style, markup=False, highlight=False, soft_wrap=True)
