"""Where contours are drawn. Imports no torch."""

from collections.abc import Callable
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.float64]]


def contours(low: float, high: float) -> tuple[Numbers, bool]:
    """Values for contours, and whether their steps are ratios: so they are where a loss spans more than tenfold."""
    if high <= low:
        return np.array([low - 0.5, low + 0.5]), False
    if low >= 0 and high > 10 * low:
        return np.geomspace(max(low, high / 3e3), high, 12), True
    return np.linspace(low, high, 12), False


def even(low: float, high: float) -> Numbers:
    """Round values from below `low` to above `high`, some ten of them."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    return np.asarray(MaxNLocator(11).tick_values(low, high if high > low else low + 1))


def written(levels: Numbers) -> Callable[..., str]:
    """A format of values for labels: with so many digits that no two levels look alike."""
    digits = next((n for n in range(2, 8) if len({f"{level:.{n}g}" for level in levels}) == len(levels)), 8)
    # Below 100 000 without an exponent, however few the digits are.
    places = max(digits, len(str(int(np.abs(levels).max())))) if np.abs(levels).max() < 1e5 else digits
    return lambda value, _=None: f"{value:.{places}g}"
