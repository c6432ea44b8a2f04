"""The record of a run's training dynamics, stored as plain arrays in dynamics.npz. Imports no torch."""

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
class RecordedExamples:
    """The recorded training examples, which are the same in every snapshot."""

    index: NDArray[np.int64]
    """Index of each example in its data set (n,)."""
    target: NDArray[Any]
    """The targets of the loss, of the kind that the data module provides: (n,) or (n, ...)."""
    truth: NDArray[Any]
    """The targets of the metrics: (n,) or (n, ...)."""
    corrupted: NDArray[np.bool_]
    """Whether the target differs from the truth (n,); probabilities are represented by the most likely class."""


@dataclass(frozen=True)
class Snapshot:
    """The recorded examples at one time in training, without augmentation and in evaluation mode."""

    epoch: Any
    """The number of finished epochs, an int; 0 is before the first step."""
    step: Any
    """The number of optimizer steps, an int."""
    outputs: Numbers
    """The raw outputs z of the network (n, Z)."""
    loss: Numbers
    """The loss ℓ of each example, including the weights of the loss (n,)."""
    margin: Numbers
    """The margin of the target (n,), see `recording.margin`; in a regression the residual."""
    truth_margin: Numbers
    """The margin of the truth (n,)."""
    gradient: Numbers
    """The gradient norm ‖∂ℓ/∂z‖₂ of each example (n,)."""
    flow: Numbers
    """The root mean square of the gradient of the mean loss in each layer (G,)."""
    slope: Numbers
    """The gradient norm ‖∂ℓ/∂z‖₂ along `recording.LINE` (P,), see `recording.loss_slope`."""


@dataclass(frozen=True)
class Record(Snapshot, RecordedExamples):
    """All L snapshots of a run, stacked along a new first axis. The fields are the arrays in dynamics.npz."""

    epoch: NDArray[np.int64]
    step: NDArray[np.int64]
    task: str
    """A value of `losslab.targets.Task`."""
    loss_name: str
    layers: NDArray[np.str_]
    """The names of the layers in the order of the network (G,)."""
    line: Numbers
    """The margins or residuals at which `slope` was computed (P,)."""

    @classmethod
    def of(
        cls,
        task: str,
        loss_name: str,
        layers: Sequence[str],
        line: Numbers,
        examples: RecordedExamples,
        snapshots: Sequence[Snapshot],
    ) -> Self:
        """Stack one or more snapshots into a record."""
        arrays: dict[str, Any] = {
            name: np.stack([getattr(each, name) for each in snapshots]) for name in vars(snapshots[0])
        }
        names = np.array(layers, dtype=np.str_)
        return cls(task=task, loss_name=loss_name, layers=names, line=line, **vars(examples), **arrays)

    @property
    def is_regression(self) -> bool:
        """Whether the task is regression, so that margins are residuals."""
        return self.task == "regression"

    @property
    def has_noise(self) -> bool:
        """Whether some targets are wrong and some are right."""
        return bool(self.corrupted.any() and not self.corrupted.all())

    @property
    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """Masks (n,) of the examples with right and with wrong targets, by name; or of all examples without noise."""
        if not self.has_noise:
            return {"examples": np.ones(len(self.index), dtype=np.bool_)}
        what = "value" if self.is_regression else "label"
        return {f"right {what}": ~self.corrupted, f"wrong {what}": self.corrupted}

    def time_of(self, row: int) -> str:
        """Return the time of a snapshot: "before training" or "epoch 3"."""
        epoch = int(self.epoch[row])
        return "before training" if epoch == 0 else f"epoch {epoch}"

    def finite(self) -> Self | None:
        """Return the record without snapshots that contain NaN or infinity; None if no snapshot is left."""
        keep = np.isfinite([self.loss, self.margin, self.truth_margin, self.gradient]).all(axis=(0, 2))
        kept = {field.name: getattr(self, field.name)[keep] for field in fields(Snapshot)}
        return replace(self, **kept) if keep.any() else None

    def save(self, path: Path) -> None:
        """Write dynamics.npz atomically."""
        arrays: dict[str, Any] = {name: np.asarray(getattr(self, name)) for name in _SHAPES}
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        atomic.write_bytes(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and validate dynamics.npz.

        Raises:
            LabError: the file does not exist, is damaged, or has other arrays.
        """
        try:
            # np.load would not close a damaged file that it opened itself.
            with open_regular_file(path) as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in _SHAPES}
            _validate(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise LabError(f"cannot read {path} ({error}): train again to record a new one") from error
        return cls(**arrays | {name: str(arrays[name]) for name in ("task", "loss_name")})


_SHAPES = {
    "task": ("U", ""), "loss_name": ("U", ""), "layers": ("U", "G"), "line": ("f", "P"), "index": ("iu", "n"),
    "target": ("iuf", "n*"), "truth": ("iuf", "n*"), "corrupted": ("b", "n"), "epoch": ("iu", "L"), "step": ("iu", "L"),
    "outputs": ("f", "LnZ"), "loss": ("f", "Ln"), "margin": ("f", "Ln"), "truth_margin": ("f", "Ln"),
    "gradient": ("f", "Ln"), "flow": ("f", "LG"), "slope": ("f", "LP"),
}  # fmt: skip
"""The allowed dtype kinds (as in np.dtype.kind) and the axes of each array; * stands for any further axes."""
_TASKS = ("regression", "binary", "multiclass", "multilabel")


def _validate(arrays: dict[str, NDArray[Any]]) -> None:
    """Check dtypes and shapes, or raise ValueError. The first array with an axis defines the length of this axis."""
    sizes: dict[str, int] = {}
    for name, (kinds, axes) in _SHAPES.items():
        array, named = arrays[name], axes.rstrip("*")
        fits = array.ndim == len(named) or (axes != named and array.ndim > len(named))
        lengths = zip(named, array.shape, strict=False)
        if array.dtype.kind not in kinds or not fits or any(sizes.setdefault(a, s) != s or not s for a, s in lengths):
            raise ValueError(f"its {name} is an array of {array.dtype} {array.shape}")
    if str(arrays["task"]) not in _TASKS:
        raise ValueError(f"its task is {arrays['task']}")
