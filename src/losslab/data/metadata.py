"""What a finished run must know of the data it learnt from, so that it can be used where they are not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from losslab.data.batch import DataSpec
from losslab.data.transforms import Normalise
from losslab.errors import LabError
from losslab.targets import Kind, Task


@dataclass(frozen=True)
class DataMetadata:
    """Facts of the data, and what was measured on the training split."""

    facts: DataSpec
    normalise: Normalise | None
    """Of images that are bytes; None where inputs are taken as they are."""
    class_counts: Tensor | None
    """How often each class is a training target (C,); None for values."""
    foreign_transform: str | None = None
    """The name of a transform of the inputs that is none of losslab's, and so cannot be kept."""

    def as_json(self) -> dict[str, Any]:
        """The same in numbers and words; float64 numbers come back from JSON as they were."""
        mean_and_std = None
        if self.normalise is not None:
            mean_and_std = {"mean": self.normalise.mean.tolist(), "std": self.normalise.std.tolist()}
        return {
            "task": self.facts.task.value,
            "kind": self.facts.kind.value,
            "input_shape": list(self.facts.input_shape),
            "targets": self.facts.targets,
            "class_names": list(self.facts.class_names),
            "class_counts": None if self.class_counts is None else self.class_counts.tolist(),
            "normalise": mean_and_std,
            "foreign_transform": self.foreign_transform,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], place: Path) -> Self:
        """What `as_json` wrote.

        Args:
            content: of the file.
            place: where that is.

        Raises:
            LabError: it is something else.
        """
        try:
            facts = DataSpec(
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
            counted = None if counts is None else torch.tensor(counts)
            known = cls(facts, normalise, counted, content["foreign_transform"])
            known._check()
        except (KeyError, TypeError, ValueError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise LabError(
                f"{place} is damaged ({reason}): delete it, and the data themselves are read instead"
            ) from error
        return known

    def _check(self) -> None:
        """Refuse what no data can be.

        Raises:
            ValueError: it says what.
        """
        facts, scale = self.facts, self.normalise
        names = 2 if facts.task is Task.BINARY else facts.targets
        whole = all(isinstance(size, int) and size > 0 for size in (facts.targets, *facts.input_shape))
        counts = self.class_counts
        wrong = {
            "targets or input_shape": not whole or not facts.input_shape,
            "class_names": len(facts.class_names) not in {0, names}
            or not all(isinstance(name, str) for name in facts.class_names),
            "normalise": scale is not None and not _scales(scale, facts.input_shape),
            "class_counts": counts is not None and counts.shape != (facts.targets,),
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(f"its {name} cannot be")

    def check_compatible(self, facts: DataSpec) -> None:
        """See that other data ask for what the run learnt to answer.

        Raises:
            LabError: they have another task, or other classes.
        """
        if facts.task is not self.facts.task or facts.targets != self.facts.targets:
            raise LabError(f"these data are {_asked(facts)}, but the run learnt {_asked(self.facts)}: choose others")
        other = [pair for pair in zip(self.facts.class_names, facts.class_names, strict=False) if pair[0] != pair[1]]
        if other:
            was, now = other[0]
            raise LabError(f"the run learnt a class {was} where these data have {now}: name the classes as in training")


def _scales(scale: Normalise, shape: tuple[int, ...]) -> bool:
    """Whether images (channels, H, W) can be divided by it: a finite mean and deviation for each channel."""
    fits = len(shape) == 3 and scale.mean.shape == scale.std.shape == shape[:1]
    return bool(fits and torch.isfinite(scale.mean).all() and torch.isfinite(scale.std).all() and (scale.std > 0).all())


def _asked(facts: DataSpec) -> str:
    units = {Task.MULTICLASS: "class", Task.MULTILABEL: "label", Task.BINARY: "label", Task.REGRESSION: "value"}
    plural = "" if facts.targets == 1 else "es" if facts.task is Task.MULTICLASS else "s"
    return f"{facts.task} with {facts.targets} {units[facts.task]}{plural}"
