"""What is kept of a run's dynamics, in one file of plain arrays. Imports no torch."""

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from losslab.errors import LabError
from losslab.io import atomic
from losslab.io.untrusted import open_regular_file

Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Examples:
    """The training examples that are watched, the same in every look."""

    index: NDArray[np.int64]
    """(n,), each example's place in its data set."""
    target: NDArray[Any]
    """What the loss learns from: (n,) or (n, ...), of the kind that the data give."""
    truth: NDArray[Any]
    """What metrics compare with: (n,) or (n, ...)."""
    corrupted: NDArray[np.bool_]
    """(n,), where the target is not the truth; of probabilities, where the likeliest class is not."""


@dataclass(frozen=True)
class Look:
    """One look at all examples, without augmentation and in evaluation mode."""

    epoch: int
    """So many were over; 0 is before the first step."""
    step: int
    outputs: Numbers
    """z, the raw outputs of the network, (n, Z)."""
    loss: Numbers
    """ℓ of each example, (n,), weighted as the loss weights it."""
    margin: Numbers
    """Of the target, (n,): see `losslab.analysis.dynamics.recording.margin`. Of values it is the residual."""
    truth_margin: Numbers
    """The same of the truth, (n,)."""
    gradient: Numbers
    """‖∂ℓ/∂z‖₂ of each example, (n,)."""
    flow: Numbers
    """Of each layer (G,), the root mean square over its parameters of the gradient of the examples' mean loss."""
    slope: Numbers
    """‖∂ℓ/∂z‖₂ on the line of `losslab.analysis.dynamics.gradients`, (P,); NaN where the loss has none."""


@dataclass(frozen=True)
class Record:
    """All looks of a run, one after the other: L looks at n examples."""

    task: str
    """As `losslab.targets.Task` names it."""
    loss_name: str
    layers: NDArray[np.str_]
    """(G,), in the order of the network."""
    line: Numbers
    """(P,), the margins or residuals of `slope`."""
    index: NDArray[np.int64]
    target: NDArray[Any]
    truth: NDArray[Any]
    corrupted: NDArray[np.bool_]
    epoch: NDArray[np.int64]
    """(L,); the fields from here on are those of `Look`, with the looks as first axis."""
    step: NDArray[np.int64]
    outputs: Numbers
    loss: Numbers
    margin: Numbers
    truth_margin: Numbers
    gradient: Numbers
    flow: Numbers
    slope: Numbers

    @classmethod
    def of(
        cls, task: str, loss_name: str, layers: Sequence[str], line: Numbers, examples: Examples, looks: Sequence[Look]
    ) -> Self:
        """The record of these looks, one at least."""
        stacked = {field.name: np.stack([getattr(look, field.name) for look in looks]) for field in fields(Look)}
        return cls(task, loss_name, np.array(layers, dtype=np.str_), line, **vars(examples), **stacked)

    @property
    def of_values(self) -> bool:
        """Whether this is a regression, whose margins are residuals."""
        return self.task == "regression"

    @property
    def has_noise(self) -> bool:
        """Whether some targets are wrong and some are right, so that the two can be told apart."""
        return bool(self.corrupted.any() and not self.corrupted.all())

    def finite(self) -> Self | None:
        """Without the looks at which an example met a NaN or an infinity; None if none is left."""
        whole = np.ones(len(self.epoch), dtype=np.bool_)
        for values in (self.loss, self.margin, self.truth_margin, self.gradient):
            whole &= np.isfinite(values).all(axis=1)
        seen = {field.name: getattr(self, field.name)[whole] for field in fields(Look)}
        return replace(self, **seen) if whole.any() else None

    def save(self, path: Path) -> None:
        """Write the file at once or not at all."""
        arrays: dict[str, Any] = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        atomic.write_bytes(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it back.

        Raises:
            LabError: there is no such file, or it is damaged or of another version.
        """
        try:
            # Opened here: of a damaged file np.load would leave it open.
            with open_regular_file(path) as file, np.load(file, allow_pickle=False) as held:
                arrays = {field.name: held[field.name] for field in fields(cls)}
            _check(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise LabError(f"cannot read {path} ({error}): train again to record it anew") from error
        return cls(**arrays | {name: str(arrays[name]) for name in ("task", "loss_name")})


_SHAPES = {
    "task": ("U", ""), "loss_name": ("U", ""), "layers": ("U", "G"), "line": ("f", "P"), "index": ("iu", "n"),
    "target": ("iuf", "n*"), "truth": ("iuf", "n*"), "corrupted": ("b", "n"), "epoch": ("iu", "L"), "step": ("iu", "L"),
    "outputs": ("f", "LnZ"), "loss": ("f", "Ln"), "margin": ("f", "Ln"), "truth_margin": ("f", "Ln"),
    "gradient": ("f", "Ln"), "flow": ("f", "LG"), "slope": ("f", "LP"),
}  # fmt: skip
"""The kinds of numbers (as NumPy's dtype.kind) and the axes of each field; * stands for any more."""
_TASKS = ("regression", "binary", "multiclass", "multilabel")


def _check(arrays: dict[str, NDArray[Any]]) -> None:
    """Refuse arrays of which no record can be made.

    Raises:
        ValueError: it says which.
    """
    sizes: dict[str, int] = {}
    for name, (kinds, axes) in _SHAPES.items():
        array, named = arrays[name], axes.rstrip("*")
        fits = array.ndim == len(named) or (axes != named and array.ndim > len(named))
        # What is met first says how long an axis is; of each there is something.
        lengths = zip(named, array.shape, strict=False)
        if array.dtype.kind not in kinds or not fits or any(sizes.setdefault(a, s) != s or not s for a, s in lengths):
            raise ValueError(f"its {name} is an array of {array.dtype} {array.shape}")
    if str(arrays["task"]) not in _TASKS:
        raise ValueError(f"its task is {arrays['task']}")
