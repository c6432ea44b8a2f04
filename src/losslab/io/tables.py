"""Tables and paragraphs for the terminal."""

from collections.abc import Sequence
from textwrap import fill
from typing import Literal

from rich import get_console
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def wrapped(line: str) -> str:
    """Broken between words; what does not fit, such as a path, stays whole."""
    return fill(line, _width(), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def table(rows: Sequence[Sequence[str]], words: Sequence[int] = (0, 4)) -> str:
    """A table as wide as the terminal. Only the names in its first column are broken where they must be."""
    head, *body = rows
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(head):
        side: Literal["left", "right"] = "left" if place in words else "right"
        made.add_column(name, justify=side, overflow="fold", no_wrap=place > 0)
    for row in body:
        made.add_row(*map(escape, row))
    if Console(width=10_000).measure(made).minimum > _width():
        return "(wider than this terminal: see the page)"
    console = Console(width=_width(), color_system=None)
    with console.capture() as captured:
        console.print(made)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())


def _width() -> int:
    terminal = get_console()
    return terminal.width if terminal.is_terminal else 160
