"""The way of a run through its weights, as it was recorded while it was trained. Imports no torch."""

import csv
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from losslab.errors import LabError
from losslab.runs import RunFolder

Array = np.ndarray[Any, np.dtype[np.float64]]


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
    def read(cls, run: RunFolder, names: list[str]) -> Self | None:
        """The path of a run whose weights have these names; None if none was recorded.

        Raises:
            LabError: the file is damaged, or of another network.
        """
        if not run.path_of_weights.is_file():
            return None
        with run.path_of_weights.open(newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        try:
            table = np.array(rows, dtype=float).reshape(len(rows), len(header))
        except ValueError as error:
            message = f"{run.path_of_weights} is damaged: {error}"
            raise LabError(message) from error
        if header != ["epoch", "step", *names] or not len(rows) or not np.isfinite(table).all():
            message = f"{run.path_of_weights} is not the path of this network: delete it to see the surface alone"
            raise LabError(message)
        return cls(table[:, 0], table[:, 1], table[:, 2:])
