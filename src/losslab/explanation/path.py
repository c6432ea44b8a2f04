"""The way of a run through its weights, as it was recorded while it was trained. Imports no torch."""

import csv
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path as File
from typing import Any, Self

import numpy as np

from losslab.errors import LabError
from losslab.plain_files import open_plain
from losslab.runs import RunFolder

Array = np.ndarray[Any, np.dtype[np.float64]]

_DELETE = "delete it to see the surface alone"
_ABSURD = 1e30
"""No run gets as far and ends at a place from which there is something to see."""


@dataclass(frozen=True)
class Path:
    """All weights of a run before its first step and after each of its epochs."""

    epochs: Array
    """(K,), from 0."""
    steps: Array
    """(K,), from 0."""
    weights: Array
    """(K, P)."""

    @classmethod
    def read(cls, run: RunFolder, names: list[str], end: Array | None = None) -> Self | None:
        """The path of a run whose weights have these names; None if none was recorded, or it has no step.

        Args:
            run: whose path.csv it is.
            names: of the weights (P,).
            end: where the path must end (P,), if that is known.

        Raises:
            LabError: the file is damaged, or of another network or run.
        """
        if not run.path_of_weights.is_file():
            return None
        try:
            header, table = _read(run.path_of_weights)
        except (OSError, ValueError, csv.Error) as error:
            message = f"{run.path_of_weights} is damaged ({error}): {_DELETE}"
            raise LabError(message) from error
        if header != ["epoch", "step", *names] or not len(table) or not (np.abs(table) < _ABSURD).all():
            message = f"{run.path_of_weights} is not the path of this network: {_DELETE}"
            raise LabError(message)
        way = cls(table[:, 0], table[:, 1], table[:, 2:])
        ascending = (np.diff(way.epochs) > 0).all() and (np.diff(way.steps) >= 0).all()
        if not ascending or (end is not None and not np.allclose(way.weights[-1], end, rtol=1e-5, atol=1e-7)):
            message = f"{run.path_of_weights} does not end at the weights of {run.last.name}: {_DELETE}"
            raise LabError(message)
        return way if len(table) > 1 else None


def _read(path: File) -> tuple[list[str], Array]:
    with TextIOWrapper(open_plain(path), encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    return header, np.array(rows, dtype=float).reshape(len(rows), len(header))
