"""Colours that the colour-blind can tell apart, and line styles for print. Imports nothing that draws."""

from collections.abc import Iterator
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, but for yellow, which is too light for a line."""
STYLES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":", (0, (1, 3)), (0, (8, 2)))
"""As many as there are colours."""


def looks() -> Iterator[dict[str, Any]]:
    """Colour and style of one line after the other, as matplotlib takes them: 49 before any pair comes again."""
    number = 0
    while True:
        style = STYLES[(number + number // len(COLOURS)) % len(STYLES)]
        yield {"color": COLOURS[number % len(COLOURS)], "linestyle": style}
        number += 1
