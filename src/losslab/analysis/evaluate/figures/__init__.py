"""The figures of an evaluation. Each function gives one; its title says what is to be seen."""

from itertools import product
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losslab.io.figures import COLOURS

STYLES = [{"color": colour, "linestyle": style} for style, colour in product(("-", "--", ":"), COLOURS[:-1])]
"""So many lines can be told apart from each other, and from the black ones of averages."""


def panels(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches, and its panels row by row."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def signed(figure: Figure, words: str) -> Figure:
    """A figure with some words in small print: below, or above where a legend stands below or all is set by hand."""
    width, height = figure.get_size_inches()
    lines, look = fill(words, int(18 * width), break_on_hyphens=False), dict[str, Any](fontsize=7, color="0.35")
    if figure.get_layout_engine() is None:
        figure.text(0.5, 1 - 0.36 / height, lines, ha="center", va="top", **look)  # below the title
    elif figure.legends:
        figure.suptitle(lines, **look)
    else:
        figure.supxlabel(lines, **look)
    return figure


def short(name: str, letters: int = 14) -> str:
    """A name that is cut where it is long."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def plural(count: int, noun: str) -> str:
    """As in 1 example, 2,000 examples."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
