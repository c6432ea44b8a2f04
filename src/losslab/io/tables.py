"""Formats tables as CSV, as Markdown, and for the terminal."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from textwrap import fill
from typing import Literal

from rich import get_console
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from losslab.io import atomic
from losslab.io.terminal import printable


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Format rows as CSV. None becomes an empty field; control characters are escaped."""
    lines = StringIO()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return printable(lines.getvalue())


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file atomically. A symbolic link at that path is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    atomic.write_bytes(path, csv_text([header, *rows]).encode())


def markdown_table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Format rows of cells as a Markdown table. The first row is the header.

    `left` contains the indices of the left-aligned columns; the others are right-aligned.
    """
    header, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    rule = [":---" if index in left else "---:" for index in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *body))


def terminal_table(
    rows: Sequence[Sequence[str]], left: Sequence[int] = (0,), *, width: int | None = None, instead: str | None = None
) -> str:
    """Format rows of cells as plain text that is `width` characters wide; the default is the width of the terminal.

    The first row is the header. `left` contains the indices of the left-aligned columns; the others are right-aligned.
    In a table that is too wide, cells of the first column are wrapped and other cells are cut. If `instead` is given,
    it is returned in place of a table whose cells would be cut.
    """
    header, *body = rows
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        justify: Literal["left", "right"] = "left" if index in left else "right"
        table.add_column(escape(name), justify=justify, overflow="ellipsis" if index else "fold", no_wrap=index > 0)
    for row in body:
        table.add_row(*map(escape, row))
    width = width or _terminal_width()
    if instead is not None and Console(width=10_000).measure(table).minimum > width:
        return instead
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())


def wrap_text(text: str) -> str:
    """Wrap a paragraph to the width of the terminal. Words longer than a line, such as paths, are not broken."""
    return fill(text, _terminal_width(), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _terminal_width() -> int:
    console = get_console()
    return console.width if console.is_terminal else 160
