"""Label noise: an exact share of wrong labels in each class, or the human labels of CIFAR-10N."""

import zipfile
from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from losslab.data import random_keys
from losslab.data.batch import DataSpec
from losslab.data.cifar10 import CLASSES, PickledArray, PickledDtype
from losslab.data.corruption.base import Corruption, TrainingSplit, is_number, with_target
from losslab.errors import LabError, message_of
from losslab.io import torch_files
from losslab.io.untrusted import open_regular_file
from losslab.targets import Task

Array = np.ndarray[Any, np.dtype[Any]]
_HOME = "http://noisylabels.com has CIFAR-10_human.pt"
_ARRAYS = {"worse": "worse_label", "aggre": "aggre_label"} | {f"random{n}": f"random_label{n}" for n in (1, 2, 3)}
"""Name of the array in the file for each value of `HumanNoise.labels`."""
_CLEAN = "clean_label"


@dataclass(frozen=True)
class LabelNoise(Corruption):
    """Base class: round(rate · n) of the n examples of each class get the label of another class.

    The choice of examples depends on the seed and the class only: all kinds of noise choose the same examples. A higher
    rate chooses all examples of a lower rate, and more.

    Args:
        rate: share of wrong labels in each class, 0 to 1.
        seed: seed of the random draws.
    """

    rate: float
    seed: int = 0
    group: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        self.require("rate", "a share from 0 to 1", holds=is_number(self.rate, 0, 1))
        self.require_seed(self.seed)

    def __call__(self, train: TrainingSplit, spec: DataSpec) -> TrainingSplit:
        """Corrupt the labels: class indices, or each column of 0/1 labels as two classes."""
        if spec.task is Task.MULTICLASS:
            return with_target(train, self._corrupt(train.target, spec, 0))
        columns = [self._corrupt(labels.long(), spec, column) for column, labels in enumerate(train.target.unbind(1))]
        return with_target(train, torch.stack(columns, dim=1).to(train.target.dtype))

    def _corrupt(self, labels: Tensor, spec: DataSpec, column: int) -> Tensor:
        """Replace a share of the class indices (N,). Indices outside 0..C-1 are not replaced."""
        classes = spec.targets if spec.task is Task.MULTICLASS else 2
        corrupted = labels.clone()
        for label in range(classes):
            rows = (labels == label).nonzero().squeeze(1)
            random = random_keys.generator(self.seed, random_keys.LABEL_NOISE, column, label)
            chosen = torch.randperm(len(rows), generator=random)[: round(self.rate * len(rows))]
            # Drawn for the whole class, so that the wrong label of an example does not depend on the rate.
            offsets = self.choose_offsets(label, torch.randint(1, classes, (len(rows),), generator=random), spec)
            corrupted[rows[chosen]] = (label + offsets[chosen]) % classes
        return corrupted

    @abstractmethod
    def choose_offsets(self, label: int, drawn: Tensor, spec: DataSpec) -> Tensor:
        """Return offsets (n,), modulo C, from class `label` to the wrong labels of its n examples; 0 keeps the label.

        `drawn` (n,) contains random offsets from 1 to C-1.
        """


@dataclass(frozen=True)
class Symmetric(LabelNoise):
    """Wrong labels are uniform over the other classes.

    `rate` is the share of wrong labels. Papers that draw from all C classes, including the right one, get a share of
    only rate · (C - 1)/C.
    """

    kind: ClassVar[str] = "symmetric"

    def choose_offsets(self, label: int, drawn: Tensor, spec: DataSpec) -> Tensor:  # noqa: ARG002
        return drawn


@dataclass(frozen=True)
class PairFlip(LabelNoise):
    """Class y becomes class y + 1, and the last class becomes class 0 (Han et al. 2018, "Co-teaching")."""

    kind: ClassVar[str] = "pair_flip"

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        if spec.task is Task.MULTILABEL:
            raise LabError(
                "noise=pair_flip needs classes that exclude each other: use noise=symmetric for several labels"
            )

    def choose_offsets(self, label: int, drawn: Tensor, spec: DataSpec) -> Tensor:  # noqa: ARG002
        return torch.ones_like(drawn)


@dataclass(frozen=True)
class Asymmetric(LabelNoise):
    """Similar classes of CIFAR-10 are confused (Patrini et al. 2017, "Making deep neural networks robust to noise").

    `rate` applies to the classes in MISTAKEN. The other five classes do not change, so for balanced classes the share
    of all wrong labels is rate / 2.
    """

    kind: ClassVar[str] = "asymmetric"
    MISTAKEN: ClassVar[dict[str, str]] = {
        "truck": "automobile",
        "bird": "airplane",
        "deer": "horse",
        "cat": "dog",
        "dog": "cat",
    }

    def check(self, spec: DataSpec) -> None:
        super().check(spec)
        missing = {*self.MISTAKEN, *self.MISTAKEN.values()} - set(spec.class_names)
        if missing or spec.task is not Task.MULTICLASS:
            raise LabError(
                f"noise=asymmetric confuses classes of CIFAR-10, and these data have no "
                f"{', '.join(sorted(missing)) or 'exclusive classes'}: use noise=pair_flip"
            )

    def choose_offsets(self, label: int, drawn: Tensor, spec: DataSpec) -> Tensor:
        name = spec.class_names[label]
        return torch.full_like(drawn, spec.class_names.index(self.MISTAKEN.get(name, name)) - label)


@dataclass(frozen=True)
class HumanNoise(Corruption):
    """CIFAR-10N (Wei et al. 2022, "Learning with noisy labels revisited"): three people labelled each training image.

    The file has a label for each of the 50,000 training images, in the official order. `Examples.index` selects the
    labels of the examples that are left after validation was split off.

    Args:
        file: CIFAR-10_human.pt from http://noisylabels.com, or an npz file with the same arrays.
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
        super().check(spec)
        if spec.class_names != CLASSES:
            raise LabError(
                "noise=human has labels for CIFAR-10 only, and these data have other classes: use data=cifar10, or "
                "noise=symmetric or pair_flip"
            )

    def __call__(self, train: TrainingSplit, spec: DataSpec) -> TrainingSplit:
        """Replace the labels. Raises LabError if the clean labels in the file differ from the truth."""
        path = Path(self.file).expanduser()
        names = (_CLEAN, _ARRAYS[self.labels])
        arrays = read_arrays(path, names)
        clean, noisy = (_labels(arrays[name], path, spec.targets) for name in names)
        last = int(train.index.max())
        if len(clean) != len(noisy) or last >= len(clean):
            raise LabError(f"{path} has labels of {len(clean):,} images, too few for the image with index {last:,}")
        differ = int((clean[train.index] != train.truth).sum())
        if differ:
            raise LabError(
                f"{path} is for other images, or for the same images in another order: its {_CLEAN} differs from the "
                f"labels of {differ:,} of {train.size:,} training images; noise=human needs the official CIFAR-10 "
                f"(data=cifar10)"
            )
        return with_target(train, noisy[train.index])


def _labels(array: Array, path: Path, classes: int) -> Tensor:
    labels = torch.from_numpy(array.astype("int64"))
    if labels.ndim != 1 or not len(labels) or labels.min() < 0 or labels.max() >= classes:
        raise LabError(f"{path} does not contain labels from 0 to {classes - 1}, one for each image")
    return labels


def read_arrays(path: Path, names: Collection[str]) -> dict[str, Array]:
    """Read these arrays without executing code from the file. Raises LabError if reading fails."""
    if not path.is_file():
        raise LabError(f"noise=human needs the labels of CIFAR-10N, and there is no {path}: set noise.file ({_HOME})")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in names if name in archive}
        else:
            arrays = _read_torch(path, names)
    except Exception as error:
        # A damaged or hostile file can raise any exception.
        raise LabError(f"cannot read {path} as labels of CIFAR-10N ({message_of(error, 160)}): {_HOME}") from error
    missing = sorted(set(names) - set(arrays))
    if missing:
        raise LabError(f"{path} contains no {' and no '.join(missing)}: {_HOME}")
    return arrays


def _read_torch(path: Path, names: Collection[str]) -> dict[str, Array]:
    """Read a dict of arrays saved by torch.save. The unpickler builds stand-ins for NumPy's classes."""
    stand_ins: list[Any] = [(PickledDtype, "numpy.dtype"), (PickledArray, "numpy.ndarray")]
    stand_ins += [(lambda *_: PickledArray(), f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    with open_regular_file(path) as file:
        if zipfile.is_zipfile(file):  # torch's format since 1.6
            torch_files.read_pickle(file)
    with torch.serialization.safe_globals(stand_ins):
        content = torch.load(path, map_location="cpu", weights_only=True)
    return {name: _integers(content[name]) for name in names if name in content}


def _integers(array: PickledArray) -> Array:
    name, order = array.dtype.name, array.dtype.order
    if name not in {"i8", "i4", "u1"} or order not in {"<", ">", "|"} or len(array.shape) != 1:
        raise ValueError("it contains an array that is not one row of integers")
    return array.to_numpy(order.replace("|", "=") + name)
