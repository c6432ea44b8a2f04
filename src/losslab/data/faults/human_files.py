"""Reads the arrays of CIFAR-10N from the official .pt file, or from an npz file, and executes nothing of either."""

import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from losslab import tensor_files
from losslab.errors import LabError
from losslab.plain_files import open_plain

Array = np.ndarray[Any, np.dtype[Any]]
_HOME = "http://noisylabels.com has CIFAR-10_human.pt"


def read_arrays(path: Path, names: Collection[str]) -> dict[str, Array]:
    """The arrays of these names.

    Raises:
        LabError: there is no such file, it cannot be read, or it holds no array of a name.
    """
    if not path.is_file():
        message = f"noise=human needs the labels of CIFAR-10N, and there is no {path}: set noise.file ({_HOME})"
        raise LabError(message)
    try:
        found = _of_npz(path, names) if path.suffix == ".npz" else _of_torch(path, names)
    except Exception as error:
        # A damaged or hostile file can raise anything at all; each of it means the same to the user.
        message = f"cannot read {path} as labels of CIFAR-10N ({' '.join(str(error).split())[:160]}): {_HOME}"
        raise LabError(message) from error
    missing = sorted(set(names) - set(found))
    if missing:
        message = f"{path} holds no {' and no '.join(missing)}: {_HOME}"
        raise LabError(message)
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
    with open_plain(path) as file:
        if zipfile.is_zipfile(file):  # as torch has saved since 1.6
            tensor_files.pickled(file)
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
            message = "no row of whole numbers"
            raise ValueError(message)
        order = self.type.order.replace("|", "=")
        return np.frombuffer(self.content, np.dtype(order + self.type.name)).reshape(self.shape).copy()
