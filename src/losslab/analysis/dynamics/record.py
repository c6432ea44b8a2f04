"""The recorded training dynamics of a run, which are arrays in dynamics.npz, and their metrics. Imports no torch.

Shapes: L snapshots, n examples, G layers. g_i = ‖∂ℓ_i/∂z_i‖₂ is the gradient norm of an example with respect to its
outputs. By the chain rule, an example changes the weights only through this gradient.
"""

import io
import math
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
NO_GRADIENT_SHARE = 1e-3
"""An example counts as without gradient if its gradient norm is below this share of the mean in the first snapshot."""


@dataclass(frozen=True)
class RecordedExamples:
    """The recorded training examples, which are the same in every snapshot."""

    index: NDArray[np.int64]
    """The index of each example in its data set (n,)."""
    target: NDArray[Any]
    """The targets of the loss, of the kind that the data module provides: (n,) or (n, ...)."""
    truth: NDArray[Any]
    """The targets of the metrics: (n,) or (n, ...)."""
    corrupted: NDArray[np.bool_]
    """Whether the target differs from the truth (n,); of target probabilities, the most likely class is compared."""


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
    """The margin of the target (n,), see `recording.margin`; in a regression, the residual."""
    truth_margin: Numbers
    """The margin of the truth (n,)."""
    gradient: Numbers
    """The gradient norm ‖∂ℓ/∂z‖₂ of each example (n,)."""
    flow: Numbers
    """The root mean square of the gradient of the mean loss with respect to the parameters of each layer (G,)."""
    slope: Numbers
    """The gradient norm ‖∂ℓ/∂z‖₂ at the margins in `recording.LINE` (P,), see `recording.loss_slope`."""


@dataclass(frozen=True)
class Record(Snapshot, RecordedExamples):
    """The recorded examples and all L snapshots, stacked along a new first axis: the arrays in dynamics.npz."""

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
        arrays["layers"] = np.array(layers, dtype=np.str_)
        return cls(task=task, loss_name=loss_name, line=line, **vars(examples), **arrays)

    @property
    def is_regression(self) -> bool:
        """Whether the task is regression; margins are then residuals."""
        return self.task == "regression"

    @property
    def has_noise(self) -> bool:
        """Whether some targets are wrong and some are right."""
        return bool(self.corrupted.any() and not self.corrupted.all())

    @property
    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """Masks (n,), by name, of the examples with right and with wrong targets; without noise, one mask of all."""
        if not self.has_noise:
            return {"examples": np.ones(len(self.index), dtype=np.bool_)}
        what = "value" if self.is_regression else "label"
        return {f"right {what}": ~self.corrupted, f"wrong {what}": self.corrupted}

    def time_of(self, row: int) -> str:
        """Return the time of a snapshot: "before training" or "epoch 3"."""
        epoch = int(self.epoch[row])
        return "before training" if epoch == 0 else f"epoch {epoch}"

    @property
    def has_losses(self) -> bool:
        """Whether the examples have losses of their own. They are NaN if the loss scores only whole batches."""
        return not bool(np.isnan(self.loss).all())

    def finite(self) -> Self | None:
        """Return the record without snapshots that contain NaN or infinity; None if no snapshot is left."""
        losses = [self.loss] if self.has_losses else []
        keep = np.isfinite([*losses, self.margin, self.truth_margin, self.gradient]).all(axis=(0, 2))
        kept = {field.name: getattr(self, field.name)[keep] for field in fields(Snapshot)}
        return replace(self, **kept) if keep.any() else None

    def no_gradient(self) -> NDArray[np.bool_]:
        """Return whether each example has (almost) no gradient: g_i < 0.001 · mean g of the first snapshot, (L, n).

        A thousand examples at this threshold have the effect of one average example before training. The threshold is
        relative because a constant factor of the loss changes only the effective learning rate.
        """
        return np.asarray(self.gradient < NO_GRADIENT_SHARE * self.gradient[0].mean(dtype=np.float64))

    def mispredicted(self) -> NDArray[np.bool_]:
        """Return whether each example is not predicted as its target (L, n). Classification only."""
        return ~(self.margin > 0)

    def area_under_margin(self) -> Numbers:
        """Return the area under the margin (AUM) of each example at each snapshot (L, n).

        This is the mean of the example's margins in all snapshots so far, without the one before training, for which
        the AUM is NaN. In a regression, it is the negated mean absolute residual. A low AUM means that other examples
        contradict the label, which is then probably wrong (Pleiss et al., Identifying mislabeled data using the area
        under the margin ranking, 2020). The paper averages over training steps.
        """
        margin = -np.abs(self.margin) if self.is_regression else self.margin
        trained = self.epoch > 0
        count = np.cumsum(trained)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.cumsum(np.where(trained[:, None], margin, 0), axis=0, dtype=np.float64) / count
        return np.where(count > 0, mean, np.nan)

    def loss_auroc(self) -> Numbers:
        """Return the AUROC of a large loss as a detector of wrong labels, at each snapshot (L,)."""
        return np.array([auroc(loss, self.corrupted) for loss in self.loss])

    def margin_auroc(self) -> Numbers:
        """Return the AUROC of a small area under the margin as a detector of wrong labels, at each snapshot (L,)."""
        return np.array([auroc(-area, self.corrupted) for area in self.area_under_margin()])

    def flow_ratio(self) -> Numbers:
        """Return the RMS gradient of each layer divided by that of the last layer (L, G); NaN where the latter is 0."""
        last = self.flow[:, -1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(last > 0, self.flow / last, np.nan)

    def newest_scalars(self) -> dict[str, float]:
        """Return those metrics of the newest snapshot that are finite, by their TensorBoard tags."""
        newest = {
            "gradient_share_hardest_10": largest_share(self.gradient[-1]),
            "no_gradient": float(self.no_gradient()[-1].mean()),
            "gradient_norm_logits": float(self.gradient[-1].mean(dtype=np.float64)),
            "noise_auroc": auroc(self.loss[-1], self.corrupted),
            "noise_auroc_margin": auroc(-self.area_under_margin()[-1], self.corrupted),
        }
        return {f"dynamics/{name}": value for name, value in newest.items() if math.isfinite(value)}

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
            LabError: the file does not exist, is damaged, or contains other arrays.
        """
        try:
            # np.load would not close a damaged file that it opened itself.
            with open_regular_file(path) as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in _SHAPES}
            _validate(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise LabError(f"cannot read {path} ({error}): train the run again to record a new file") from error
        return cls(**arrays | {name: str(arrays[name]) for name in ("task", "loss_name")})


_SHAPES = {
    "task": ("U", ""), "loss_name": ("U", ""), "layers": ("U", "G"), "line": ("f", "P"), "index": ("iu", "n"),
    "target": ("iuf", "n*"), "truth": ("iuf", "n*"), "corrupted": ("b", "n"), "epoch": ("iu", "L"), "step": ("iu", "L"),
    "outputs": ("f", "LnZ"), "loss": ("f", "Ln"), "margin": ("f", "Ln"), "truth_margin": ("f", "Ln"),
    "gradient": ("f", "Ln"), "flow": ("f", "LG"), "slope": ("f", "LP"),
}  # fmt: skip
"""For each array, its allowed values of np.dtype.kind and its axes; * stands for any further axes."""


def _validate(arrays: dict[str, NDArray[Any]]) -> None:
    """Raise ValueError unless dtypes and shapes are as in `_SHAPES`. Axes with the same letter have the same length."""
    sizes: dict[str, int] = {}
    for name, (kinds, axes) in _SHAPES.items():
        array, named = arrays[name], axes.rstrip("*")
        fits = array.ndim == len(named) or (axes != named and array.ndim > len(named))
        lengths = zip(named, array.shape, strict=False)
        if array.dtype.kind not in kinds or not fits or any(sizes.setdefault(a, s) != s or not s for a, s in lengths):
            raise ValueError(f"its array {name} has dtype {array.dtype} and shape {array.shape}")
    if str(arrays["task"]) not in {"regression", "binary", "multiclass", "multilabel"}:
        raise ValueError(f"its task is {arrays['task']}")


def largest_share(values: Numbers, share: float = 0.1) -> float:
    """Return the sum of the largest values divided by the sum of all n values, which are ≥ 0.

    The number of largest values is `share` · n, rounded up. The result is `share` if all values are equal, 1 if all but
    the largest are 0, and NaN if all are 0.
    """
    count = math.ceil(share * len(values) - 1e-9)  # 0.1 · 30 is slightly more than 3
    total = values.sum(dtype=np.float64)
    return float(np.sort(values)[-count:].sum(dtype=np.float64) / total) if 0 < total < math.inf else math.nan


def auroc(score: Numbers, corrupted: NDArray[np.bool_]) -> float:
    """Return the AUROC of a score (n,) as a detector of wrong labels; NaN if all labels are right, or all are wrong.

    This is the probability that a wrong label has a higher score than a right one; 1/2 is as good as guessing. With the
    loss as score, it measures the small-loss trick: networks fit common patterns before they memorise wrong labels
    (Arpit et al., A closer look at memorization in deep networks, 2017; Northcutt et al., Confident learning, 2021).
    It is also NaN if a score is not finite.
    """
    if not corrupted.any() or corrupted.all() or not np.isfinite(score).all():
        return math.nan
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 -- slow to import, needed with wrong labels only

    return float(roc_auc_score(corrupted, score))
