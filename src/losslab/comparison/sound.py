"""Whether files of a run hold what a run writes: asked once, as they are read, so that nobody after asks again."""

from collections.abc import Mapping
from math import isnan
from typing import Any

_COUNTS = ("epoch", "step")
_SHARES = {"accuracy", "precision", "recall", "f1", "ece"}
_HUGE = 1e100
"""No loss of a network comes near it, and above it squares of squares overflow, of which intervals are made."""


def final(content: Any) -> dict[str, float]:
    """The final values in the content of a metrics.json; what was not finite stands there as null and is left out.

    Raises:
        ValueError: it is no table of such values, or is empty, or a name is of more than a line.
    """
    if not isinstance(content, Mapping) or not content:
        message = "no values by name"
        raise ValueError(message)
    strange = next((name for name in content if not str(name).isprintable()), None)
    if strange is not None:
        message = f"{ascii(strange)[:80]} is no name of a value"
        raise ValueError(message)
    return {name: number(name, value) for name, value in content.items() if value is not None}


def number(name: str, found: Any) -> float:
    """A value of a run.

    Raises:
        ValueError: it is no number, or none that a value of this name can be.
    """
    if isinstance(found, bool) or not isinstance(found, int | float):
        message = f"{name} is {found!r:.40}, no number"
    elif not abs(found) < _HUGE:  # NaN is not
        message = f"{name} is {found!r:.40}"
    elif _is_share(name) and not -1e-6 <= found <= 1 + 1e-6:
        message = f"{name} is {found!r:.40}, not between 0 and 1"
    else:
        return float(found)
    raise ValueError(message)


def cell(name: str, text: str) -> float:
    """A value in a table of epochs; NaN where the cell is empty or holds what is not finite, as of a loss in an epoch.

    Raises:
        ValueError: it is no number, or none that a value of this name can be.
    """
    found = float(text or "nan")
    if name in _COUNTS and not (0 <= found < 1e15 and found.is_integer()):
        message = f"{name} is {text or 'empty'}, no count"
        raise ValueError(message)
    if name == "seconds" and not 0 <= found < 1e15:
        message = f"{name} is {text or 'empty'}"
        raise ValueError(message)
    return float("nan") if isnan(found) or abs(found) == float("inf") else number(name, found)


def _is_share(name: str) -> bool:
    """Whether a value is a share of examples, or a mean of shares or of differences of such."""
    return "/" in name and name.rpartition("/")[2].removesuffix("_given") in _SHARES
