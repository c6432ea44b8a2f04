"""`DataMetadata`: what a run stores about its training data, so that its network can be used without them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from losslab.data.batch import DataSpec
from losslab.data.transforms import Normalise
from losslab.errors import LabError, message_of
from losslab.targets import Kind, Task


@dataclass(frozen=True)
class DataMetadata:
    """The `DataSpec` of the data, and statistics of the training split."""

    spec: DataSpec
    normalise: Normalise | None
    """Normalisation of uint8 images; None if inputs are used as they are."""
    class_counts: Tensor | None
    """Number of training targets of each class (C,); None for values."""
    foreign_transform: str | None = None
    """Name of an input transform from outside losslab, which cannot be stored."""

    def as_json(self) -> dict[str, Any]:
        """The content of data.json. float64 numbers are restored exactly by `from_json`."""
        mean_and_std = None
        if self.normalise is not None:
            mean_and_std = {"mean": self.normalise.mean.tolist(), "std": self.normalise.std.tolist()}
        return {
            "task": self.spec.task.value,
            "kind": self.spec.kind.value,
            "input_shape": list(self.spec.input_shape),
            "targets": self.spec.targets,
            "class_names": list(self.spec.class_names),
            "class_counts": None if self.class_counts is None else self.class_counts.tolist(),
            "normalise": mean_and_std,
            "foreign_transform": self.foreign_transform,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], path: Path) -> Self:
        """Restore what `as_json` returned. Raises LabError, which names `path`, if the content is damaged."""
        try:
            spec = DataSpec(
                Task(content["task"]),
                Kind(content["kind"]),
                tuple(content["input_shape"]),
                content["targets"],
                tuple(content["class_names"]),
            )
            scale, counts = content["normalise"], content["class_counts"]
            normalise = None
            if scale is not None:
                normalise = Normalise(*(torch.tensor(scale[key], dtype=torch.float64) for key in ("mean", "std")))
            class_counts = None if counts is None else torch.tensor(counts)
            metadata = cls(spec, normalise, class_counts, content["foreign_transform"])
            metadata._validate()
        except (KeyError, TypeError, ValueError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else message_of(error)
            raise LabError(
                f"{path} is damaged ({reason}): delete it, and the data themselves are read instead"
            ) from error
        return metadata

    def _validate(self) -> None:
        """Raise ValueError if a field is impossible."""
        spec, normalise, counts = self.spec, self.normalise, self.class_counts
        sizes_valid = all(isinstance(size, int) and size > 0 for size in (spec.targets, *spec.input_shape))
        n_names = 2 if spec.task is Task.BINARY else spec.targets
        invalid = {
            "targets or input_shape": not sizes_valid or not spec.input_shape,
            "class_names": len(spec.class_names) not in {0, n_names}
            or not all(isinstance(name, str) for name in spec.class_names),
            "normalise": normalise is not None and not _is_valid(normalise, spec.input_shape),
            "class_counts": counts is not None and counts.shape != (spec.targets,),
        }
        for name, is_invalid in invalid.items():
            if is_invalid:
                raise ValueError(f"invalid {name}")

    def check_compatible(self, spec: DataSpec) -> None:
        """Raise LabError unless other data have the task and the classes that the run was trained for."""
        if spec.task is not self.spec.task or spec.targets != self.spec.targets:
            raise LabError(
                f"these data are {_describe(spec)}, but the run learnt {_describe(self.spec)}: choose other data"
            )
        for trained, given in zip(self.spec.class_names, spec.class_names, strict=False):
            if trained != given:
                raise LabError(
                    f"the run learnt a class {trained} where these data have {given}: name the classes as in training"
                )


def _is_valid(normalise: Normalise, shape: tuple[int, ...]) -> bool:
    """Whether it has a finite mean and a finite positive std for each channel of images (channels, H, W)."""
    mean, std = normalise.mean, normalise.std
    fits = len(shape) == 3 and mean.shape == std.shape == shape[:1]
    return bool(fits and torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all())


def _describe(spec: DataSpec) -> str:
    units = {Task.MULTICLASS: "class", Task.MULTILABEL: "label", Task.BINARY: "label", Task.REGRESSION: "value"}
    plural = "" if spec.targets == 1 else "es" if spec.task is Task.MULTICLASS else "s"
    return f"{spec.task} with {spec.targets} {units[spec.task]}{plural}"
