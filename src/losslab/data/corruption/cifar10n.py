"""Reads the arrays of CIFAR-10N from the official .pt file, or from an npz file, and executes nothing of either.

Labels as people gave them: CIFAR-10N.
"""

import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from losslab.data.batch import DataSpec
from losslab.data.cifar10_files import CLASSES
from losslab.data.corruption import subset
from losslab.data.corruption.base import Corruption
from losslab.data.corruption.subset import TrainingSplit
from losslab.errors import LabError
from losslab.io import torch_files
from losslab.io.untrusted import open_regular_file

Array = np.ndarray[Any, np.dtype[Any]]
_HOME = "http://noisylabels.com has CIFAR-10_human.pt"


def read_arrays(path: Path, names: Collection[str]) -> dict[str, Array]:
    """The arrays of these names.

    Raises:
        LabError: there is no such file, it cannot be read, or it holds no array of a name.
    """
    if not path.is_file():
        raise LabError(f"noise=human needs the labels of CIFAR-10N, and there is no {path}: set noise.file ({_HOME})")
    try:
        found = _of_npz(path, names) if path.suffix == ".npz" else _of_torch(path, names)
    except Exception as error:
        # A damaged or hostile file can raise anything at all; each of it means the same to the user.
        raise LabError(
            f"cannot read {path} as labels of CIFAR-10N ({' '.join(str(error).split())[:160]}): {_HOME}"
        ) from error
    missing = sorted(set(names) - set(found))
    if missing:
        raise LabError(f"{path} holds no {' and no '.join(missing)}: {_HOME}")
    return found


def _of_npz(path: Path, names: Collection[str]) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names if name in arrays}


def _of_torch(path: Path, names: Collection[str]) -> dict[str, Array]:
    """A dict of arrays that torch.save pickled.

    NumPy is not reachable from the pickle, only stand-ins are: a dtype made by hostile bytes can crash the process.
    """
    stand_ins: list[Any] = [(_PickledType, "numpy.dtype"), (_PickledArray, "numpy.ndarray")]
    stand_ins += [(_reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    with open_regular_file(path) as file:
        if zipfile.is_zipfile(file):  # as torch has saved since 1.6
            torch_files.read_pickle(file)
    with torch.serialization.safe_globals(stand_ins):
        content = torch.load(path, map_location="cpu", weights_only=True)
    return {name: content[name].array() for name in names if name in content}


def _reconstruct(*_: Any) -> "_PickledArray":
    return _PickledArray()


class _PickledType:
    """What a pickle says of a dtype: its name and its byte order."""

    def __init__(self, name: str = "", *_: Any) -> None:
        self.name, self.order = name, "|"

    def __setstate__(self, state: Any) -> None:
        """NumPy's own: version, byte order, and what only compound types have."""
        self.order = state[1]


class _PickledArray:
    """What a pickle says of an array: shape, type, order and bytes."""

    def __setstate__(self, state: Any) -> None:
        """NumPy's own five: version, shape, type, whether Fortran's order, bytes."""
        _, self.shape, self.type, _, self.content = state

    def array(self) -> Array:
        """The array, if it is one of whole numbers in a row."""
        if self.type.name not in {"i8", "i4", "u1"} or self.type.order not in {"<", ">", "|"} or len(self.shape) != 1:
            raise ValueError("no row of whole numbers")
        order = self.type.order.replace("|", "=")
        return np.frombuffer(self.content, np.dtype(order + self.type.name)).reshape(self.shape).copy()


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

    The labels belong to the official 50,000 training images in their order. Through `Examples.index` each example
    finds its own, whatever was split off or left out before.

    Args:
        file: CIFAR-10_human.pt of http://noisylabels.com, or an npz file with the same arrays.
        labels: "random1", "random2" or "random3" for what one person said (17.23, 18.12 and 17.64 % wrong), "aggre"
            for the majority (9.01 %), "worse" for a wrong one wherever there is one (40.21 %).
    """

    file: str
    labels: str = "worse"
    group: ClassVar[str] = "noise"
    kind: ClassVar[str] = "human"

    def __post_init__(self) -> None:
        self.must("labels", f"one of {', '.join(_ARRAYS)}", holds=self.labels in _ARRAYS)

    def check(self, facts: DataSpec) -> None:
        """Refuse data that are not CIFAR-10."""
        self.must_have_classes(facts)
        if facts.class_names != CLASSES:
            raise LabError(
                "noise=human is what people said of CIFAR-10's images, and these are others: use data=cifar10, or "
                "noise=symmetric or pair_flip"
            )

    def __call__(self, train: TrainingSplit, facts: DataSpec) -> TrainingSplit:
        """What people said of each example; what it is must be what the file says it is."""
        path = Path(self.file).expanduser()
        arrays = read_arrays(path, (_CLEAN, _ARRAYS[self.labels]))
        clean, said = (_labels(arrays[name], path, facts.targets) for name in (_CLEAN, _ARRAYS[self.labels]))
        last = int(train.index.max())
        if len(clean) != len(said) or last >= len(clean):
            raise LabError(
                f"{path} has labels of {len(clean):,} images, and these data have one with the number {last:,}"
            )
        differ = int((clean[train.index] != train.truth).sum())
        if differ:
            raise LabError(
                f"{path} is of other images, or of these in another order: its {_CLEAN} differs from the labels of "
                f"{differ:,} of {train.size:,} training images; noise=human is for the official CIFAR-10 (data=cifar10)"
            )
        return subset.with_target(train, said[train.index])


def _labels(array: Any, path: Path, classes: int) -> Tensor:
    labels = torch.from_numpy(array.astype("int64"))
    if labels.ndim != 1 or not len(labels) or labels.min() < 0 or labels.max() >= classes:
        raise LabError(f"{path} does not hold labels from 0 to {classes - 1}, one an image")
    return labels
