"""Numbers as they are written."""

from losslab.comparison.statistics import Estimate, Factor


def number(found: Estimate | Factor, *, signed: bool = False) -> str:
    """A mean ± the half of its interval, both to the two leading digits of the half; of a factor its two ends.

    Args:
        found: of one group, or of the difference or ratio of two.
        signed: whether it is of two.
    """
    if isinstance(found, Factor):
        ends = "unbounded" if found.unbounded else f"{_short(found.low)} to {_short(found.high)}"
        return f"{'×' if signed else ''}{_short(found.mean)} ({ends})"
    if found.half == 0:
        return f"{found.mean:+.3g} ± 0" if signed and found.mean else f"{found.mean:.4g} ± 0"
    if found.half >= 1e5:
        return f"{found.mean:{'+' if signed else ''}.3g} ± {found.half:.2g}"
    exponent = int(f"{found.half:.1e}".partition("e")[2])
    digits = max(0, 1 - exponent)
    return f"{found.mean:{'+z' if signed else 'z'}.{digits}f} ± {found.half:.{digits}f}"


def _short(value: float) -> str:
    """Three leading digits, as a plain number where that is short."""
    return f"{value:.2e}" if value >= 1e6 or 0 < value < 1e-5 else f"{float(f'{value:.3g}'):,.10g}"
