"""What a comparison is asked for: made sure of before anything is read."""

from collections.abc import Iterable, Sequence
from math import inf, isfinite
from numbers import Real
from os import PathLike
from pathlib import Path

from losslab.analysis.compare.differences import SCALES
from losslab.errors import LabError


def folders(given: object) -> list[Path]:
    """Of runs, sweeps or any above them: several, or one alone.

    Raises:
        LabError: these are no paths, or there is none.
    """
    several = [given] if isinstance(given, str | PathLike) else [*given] if isinstance(given, Iterable) else []
    if not several or not all(isinstance(one, str | PathLike) for one in several):
        raise LabError(f"folders are paths, of runs or of folders above them, got {given!r:.60}")
    return [Path(one) for one in several]


def names(what: str, given: object) -> list[str] | None:
    """Metrics, or the parts of a baseline: several, one alone, or None.

    Raises:
        LabError: these are no names.
    """
    if given is None:
        return None
    several = [given] if isinstance(given, str) else [*given] if isinstance(given, Iterable) else [None]
    found = [one for one in several if isinstance(one, str)]
    if len(found) < len(several):
        raise LabError(f"{what} must be a text or several, got {given!r:.60}")
    return found


def reach(given: object) -> tuple[str, float | None] | None:
    """A curve and the value that it is to reach, or None for what the runs tell.

    Raises:
        LabError: it is something else, or the value is no finite number.
    """
    if given is None:
        return None
    metric, value = given if isinstance(given, Sequence) and len(given) == 2 and not isinstance(given, str) else (0, 0)
    if not isinstance(metric, str):
        raise LabError(f'reach is a curve and a value, as in ("val/accuracy", 0.6), got {given!r:.60}')
    if value is None:
        return metric, None
    level = _float(value)
    if not isfinite(level):
        raise LabError(f"the value to reach in {metric} must be a finite number, as in {metric}=0.6, got {value!r:.60}")
    return metric, level


def _float(value: object) -> float:
    """Infinity for what is no number, or beyond all."""
    try:
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else inf
    except OverflowError:
        return inf


def scale(given: object) -> None:
    """Refuse a scale that there is not.

    Raises:
        LabError: it is none.
    """
    if given not in SCALES:
        raise LabError(f"there is no scale {given!r:.60}; there are {', '.join(SCALES)}")
