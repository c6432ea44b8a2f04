"""Human label noise: CIFAR-10N, read from the official .pt file or an npz file without executing any of its content."""

import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from losslab.data.batch import DataSpec
from losslab.data.cifar10_files import CLASSES, PickledArray, PickledDtype
from losslab.data.corruption.base import Corruption, TrainingSplit, with_target
from losslab.errors import LabError, message_of
from losslab.io import torch_files
from losslab.io.untrusted import open_regular_file

Array = np.ndarray[Any, np.dtype[Any]]
_HOME = "http://noisylabels.com has CIFAR-10_human.pt"
_ARRAYS = {
    "worse": "worse_label",
    "aggre": "aggre_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
}
_CLEAN = "clean_label"


@dataclass(frozen=True)
class HumanNoise(Corruption):
    """CIFAR-10N (Wei et al. 2022, "Learning with noisy labels revisited"): three people labelled each training image.

    The file has a label for each of the 50,000 official training images in their order. `Examples.index` finds an
    example's label whatever was split off or left out before.

    Args:
        file: CIFAR-10_human.pt of http://noisylabels.com, or an npz file with the same arrays.
        labels: "random1", "random2" or "random3" for the labels of one person (17.23, 18.12 and 17.64 % wrong),
            "aggre" for the majority vote (9.01 %), "worse" for a wrong label if any person gave one (40.21 %).
    """

    file: str
    labels: str = "worse"
    group: ClassVar[str] = "noise"
    kind: ClassVar[str] = "human"

    def __post_init__(self) -> None:
        self.require("labels", f"one of {', '.join(_ARRAYS)}", holds=self.labels in _ARRAYS)

    def check(self, spec: DataSpec) -> None:
        self.require_classes(spec)
        if spec.class_names != CLASSES:
            raise LabError(
                "noise=human has labels for the images of CIFAR-10, and these data are others: use data=cifar10, or "
                "noise=symmetric or pair_flip"
            )

    def __call__(self, train: TrainingSplit, spec: DataSpec) -> TrainingSplit:
        """Replace the labels; the file's clean labels must equal the truth."""
        path = Path(self.file).expanduser()
        names = (_CLEAN, _ARRAYS[self.labels])
        arrays = read_arrays(path, names)
        clean, noisy = (_labels(arrays[name], path, spec.targets) for name in names)
        last = int(train.index.max())
        if len(clean) != len(noisy) or last >= len(clean):
            raise LabError(
                f"{path} has labels of {len(clean):,} images, and these data have one with the number {last:,}"
            )
        differ = int((clean[train.index] != train.truth).sum())
        if differ:
            raise LabError(
                f"{path} is of other images, or of these in another order: its {_CLEAN} differs from the labels of "
                f"{differ:,} of {train.size:,} training images; noise=human is for the official CIFAR-10 (data=cifar10)"
            )
        return with_target(train, noisy[train.index])


def _labels(array: Array, path: Path, classes: int) -> Tensor:
    labels = torch.from_numpy(array.astype("int64"))
    if labels.ndim != 1 or not len(labels) or labels.min() < 0 or labels.max() >= classes:
        raise LabError(f"{path} does not hold labels from 0 to {classes - 1}, one for each image")
    return labels


def read_arrays(path: Path, names: Collection[str]) -> dict[str, Array]:
    """Read the named arrays. Raises LabError if the file or one of them is missing or unreadable."""
    if not path.is_file():
        raise LabError(f"noise=human needs the labels of CIFAR-10N, and there is no {path}: set noise.file ({_HOME})")
    try:
        arrays = _read_npz(path, names) if path.suffix == ".npz" else _read_torch(path, names)
    except Exception as error:
        # A damaged or hostile file can raise any exception.
        raise LabError(f"cannot read {path} as labels of CIFAR-10N ({message_of(error, 160)}): {_HOME}") from error
    missing = sorted(set(names) - set(arrays))
    if missing:
        raise LabError(f"{path} holds no {' and no '.join(missing)}: {_HOME}")
    return arrays


def _read_npz(path: Path, names: Collection[str]) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names if name in arrays}


def _read_torch(path: Path, names: Collection[str]) -> dict[str, Array]:
    """Read a dict of arrays saved by torch.save. The unpickler builds stand-ins for NumPy's classes."""
    stand_ins: list[Any] = [(PickledDtype, "numpy.dtype"), (PickledArray, "numpy.ndarray")]
    stand_ins += [(_reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    with open_regular_file(path) as file:
        if zipfile.is_zipfile(file):  # torch's format since 1.6
            torch_files.read_pickle(file)
    with torch.serialization.safe_globals(stand_ins):
        content = torch.load(path, map_location="cpu", weights_only=True)
    return {name: _integers(content[name]) for name in names if name in content}


def _reconstruct(*_: Any) -> PickledArray:
    return PickledArray()


def _integers(array: PickledArray) -> Array:
    name, order = array.dtype.name, array.dtype.order
    if name not in {"i8", "i4", "u1"} or order not in {"<", ">", "|"} or len(array.shape) != 1:
        raise ValueError("no row of whole numbers")
    return array.to_numpy(order.replace("|", "=") + name)
