"""Numbers as they are written."""

from losslab.comparison.statistics import Estimate, Factor

_MOST = 15
"""Digits that a float has."""


def number(found: Estimate | Factor, *, signed: bool = False) -> str:
    """A mean ± the half of its interval, both to the two leading digits of the half; of a factor its two ends.

    More digits where the interval leaves out 0 (of ratios 1) and would not seem to.

    Args:
        found: of one group, or of the difference or ratio of two.
        signed: whether it is of two.
    """
    if isinstance(found, Factor):
        return _factor(found, ratio=signed)
    if found.half == 0:
        return f"{found.mean:+.3g} ± 0" if signed and found.mean else f"{found.mean:.4g} ± 0"
    digits = least = 1 - _exponent(found.half)
    while (
        found.distinguishable and digits < least + _MOST and abs(round(found.mean, digits)) == round(found.half, digits)
    ):
        digits += 1
    return f"{_rounded(found.mean, digits, found.half, sign='+' * signed)} ± {_rounded(found.half, digits, found.half)}"


def _rounded(value: float, digits: int, half: float, sign: str = "") -> str:
    """To so many digits behind the point; of very large and very small intervals with an exponent."""
    if half < 1e5 and digits <= _MOST:
        return f"{value:{sign}z.{max(0, digits)}f}"
    near = round(value, digits)
    return f"{near:{sign}.{max(0, _exponent(near) + digits)}e}" if near else "0"


def _exponent(value: float) -> int:
    return int(f"{value:.1e}".partition("e")[2])


def _factor(found: Factor, *, ratio: bool) -> str:
    if found.unbounded:
        return f"{'×' if ratio else ''}{_short(found.mean)} (unbounded)"
    digits, near = 3, found.low if found.low > 1 else found.high
    while ratio and not found.low <= 1 <= found.high and digits < _MOST and _short(near, digits) == "1":
        digits += 1
    mean, low, high = (_short(value, digits) for value in (found.mean, found.low, found.high))
    return f"{'×' if ratio else ''}{mean} ({low} to {high})"


def _short(value: float, digits: int = 3) -> str:
    """So many leading digits, as a plain number where that is short."""
    if value >= 1e6 or 0 < value < 1e-5:
        return f"{value:.{digits - 1}e}"
    return f"{float(f'{value:.{digits}g}'):,.{max(10, digits)}g}"
