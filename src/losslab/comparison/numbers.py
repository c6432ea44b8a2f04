"""Numbers as they are written."""

from losslab.comparison.statistics import Estimate


def number(found: Estimate, *, signed: bool = False) -> str:
    """A mean ± the half of its interval, both to the two leading digits of the half."""
    if found.half == 0:
        return f"{found.mean:+.3g} ± 0" if signed and found.mean else f"{found.mean:.4g} ± 0"
    if found.half >= 1e5:
        return f"{found.mean:{'+' if signed else ''}.3g} ± {found.half:.2g}"
    exponent = int(f"{found.half:.1e}".partition("e")[2])
    digits = max(0, 1 - exponent)
    return f"{found.mean:{'+z' if signed else 'z'}.{digits}f} ± {found.half:.{digits}f}"
