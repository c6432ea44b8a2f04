"""What the outputs of a network mean: its answer to each example, beside the truth and the target."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from losslab.analysis.outputs import SplitOutputs
from losslab.data.batch import DataSpec
from losslab.errors import LabError
from losslab.losses.gaussian_nll import GaussianNLL
from losslab.models.learner import Learner
from losslab.models.metrics import normalise_rows
from losslab.targets import Kind, Task

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Answers:
    """All examples of a split in the order of `index`; floating numbers are float64."""

    facts: DataSpec
    index: Array
    """int64 (N,)."""
    truth: Array
    """y (N,), 0/1 (N, K) or values (N, D)."""
    target: Array
    """What the loss was held against: as the truth, or class probabilities (N, C)."""
    prediction: Array
    """Decided class (N,), decided labels (N, K) or values (N, D)."""
    loss: Array
    """Of each example (N,)."""
    probabilities: Array | None = None
    """(N, C), rows summing to 1, or (N, K); None for values."""
    scores: Array | None = None
    """Of classes, by whose greatest the class is decided (N, C); None but for exclusive classes."""
    deviation: Array | None = None
    """Predicted standard deviations (N, D), by a loss that has the network predict them."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def target_class(self) -> Array:
        """Of exclusive classes, the class that the target names or holds for most probable (N,)."""
        return self.target if self.target.ndim == 1 else self.target.argmax(1)

    @property
    def confidence(self) -> Array:
        """The probability of each decision: (N,), or (N, K) for labels."""
        assert self.probabilities is not None  # noqa: S101 -- for the type checker
        if self.facts.task is Task.MULTICLASS:
            return self.probabilities[np.arange(len(self)), self.prediction]
        chosen: Array = np.where(self.prediction == 1, self.probabilities, 1 - self.probabilities)
        return chosen

    @property
    def mislabelled(self) -> Array:
        """Whether the target is not the truth: label noise, an outlier (N,)."""
        target = self.target_class if self.facts.task is Task.MULTICLASS else self.target
        differs: Any = target != self.truth
        marked: Array = differs.reshape(len(self), -1).any(axis=1)
        return marked

    def worst(self, count: int) -> Array:
        """The rows of the highest losses, the highest first; of equal ones the first in the data set."""
        return np.argsort(-self.loss, kind="stable")[:count]


def answers(learner: Learner, seen: SplitOutputs) -> Answers:
    """Read the outputs as the loss defines their meaning.

    Raises:
        LabError: outputs are NaN or infinite.
    """
    _check(seen)
    facts = learner.facts
    outputs = seen.outputs.to(next(learner.parameters()).device)
    with torch.no_grad():
        scores = learner.predictions(outputs)
        probabilities = learner.probabilities(outputs)
        loss = learner.loss
        deviation = loss.variances(outputs).sqrt() if isinstance(loss, GaussianNLL) else None
        prediction = scores if probabilities is None else decided(facts.task, scores, probabilities)
        if probabilities is not None and facts.task is Task.MULTICLASS:
            probabilities = normalise_rows(probabilities.double())
    columns = {"truth": seen.truth, "target": seen.target, "prediction": prediction, "loss": seen.loss}
    more = {"probabilities": probabilities, "deviation": deviation}
    columns |= {name: column for name, column in more.items() if column is not None}
    if facts.task is Task.MULTICLASS:
        columns["scores"] = scores
    arrays = {name: _array(column) for name, column in columns.items()}
    if facts.task in {Task.BINARY, Task.MULTILABEL}:
        arrays["truth"] = arrays["truth"].astype(np.int64)
        if facts.kind is Kind.BINARY and np.isin(arrays["target"], (0, 1)).all():
            arrays["target"] = arrays["target"].astype(np.int64)
    return Answers(facts, _array(seen.index), **arrays)


def decided(task: Task, scores: Tensor, probabilities: Tensor) -> Tensor:
    """The decisions that the yardsticks judge: the class of the greatest score (N,), labels above one half (N, K)."""
    return scores.argmax(1) if task is Task.MULTICLASS else (probabilities > 0.5).long()


def _check(seen: SplitOutputs) -> None:
    bad = ~torch.isfinite(seen.outputs.flatten(1)).all(1)
    if bad.any():
        first = int(seen.index[bad][0])
        raise LabError(
            f"the outputs of {int(bad.sum()):,} of {len(bad):,} examples are NaN or infinite, the first of example "
            f"{first}: the run diverged, or the inputs are not finite; try --ckpt last or best"
        )


def _array(tensor: Tensor) -> Array:
    array: Array = (tensor.double() if tensor.is_floating_point() else tensor).cpu().numpy()
    return array
