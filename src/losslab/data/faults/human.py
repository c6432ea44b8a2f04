"""Labels as people gave them: CIFAR-10N."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from losslab.data.batch import Facts
from losslab.data.cifar_files import CLASSES
from losslab.data.faults import excerpt
from losslab.data.faults.excerpt import Training
from losslab.data.faults.fault import Fault
from losslab.data.faults.human_files import read_arrays
from losslab.errors import LabError

_ARRAYS = {
    "worse": "worse_label",
    "aggre": "aggre_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
}
_CLEAN = "clean_label"


@dataclass(frozen=True)
class HumanNoise(Fault):
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

    def check(self, facts: Facts) -> None:
        """Refuse data that are not CIFAR-10."""
        self.must_have_classes(facts)
        if facts.class_names != CLASSES:
            message = (
                "noise=human is what people said of CIFAR-10's images, and these are others: use data=cifar10, or "
                "noise=symmetric or pair_flip"
            )
            raise LabError(message)

    def __call__(self, train: Training, facts: Facts) -> Training:
        """What people said of each example; what it is must be what the file says it is."""
        path = Path(self.file).expanduser()
        arrays = read_arrays(path, (_CLEAN, _ARRAYS[self.labels]))
        clean, said = (_labels(arrays[name], path, facts.targets) for name in (_CLEAN, _ARRAYS[self.labels]))
        last = int(train.index.max())
        if len(clean) != len(said) or last >= len(clean):
            message = f"{path} has labels of {len(clean):,} images, and these data have one with the number {last:,}"
            raise LabError(message)
        differ = int((clean[train.index] != train.truth).sum())
        if differ:
            message = (
                f"{path} is of other images, or of these in another order: its {_CLEAN} differs from the labels of "
                f"{differ:,} of {train.size:,} training images; noise=human is for the official CIFAR-10 (data=cifar10)"
            )
            raise LabError(message)
        return excerpt.given(train, said[train.index])


def _labels(array: Any, path: Path, classes: int) -> Tensor:
    labels = torch.from_numpy(array.astype("int64"))
    if labels.ndim != 1 or not len(labels) or labels.min() < 0 or labels.max() >= classes:
        message = f"{path} does not hold labels from 0 to {classes - 1}, one an image"
        raise LabError(message)
    return labels
