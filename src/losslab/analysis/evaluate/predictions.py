"""What the outputs of a network mean: its prediction for each example of a split, with truth, target and loss."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from losslab.analysis.outputs import SplitOutputs
from losslab.data.batch import DataSpec
from losslab.errors import LabError
from losslab.losses.likelihoods import GaussianNLL
from losslab.models.learner import Learner
from losslab.models.metrics import normalise_rows
from losslab.targets import Kind, Task

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Predictions:
    """All examples of a split, sorted by `index`. Floating-point arrays are float64."""

    spec: DataSpec
    index: Array
    """int64 (N,)."""
    truth: Array
    """Classes (N,), 0/1 labels (N, K) or values (N, D)."""
    target: Array
    """Targets of the loss: in the form of the truth, or class probabilities (N, C)."""
    prediction: Array
    """Predicted classes (N,), 0/1 labels (N, K) or values (N, D)."""
    loss: Array
    """Loss of each example (N,)."""
    probabilities: Array | None = None
    """Of classes (N, C), with rows that sum to 1, or of labels (N, K); None in a regression."""
    scores: Array | None = None
    """Multiclass only: the scores (N, C) whose argmax is the predicted class."""
    deviation: Array | None = None
    """Predicted standard deviations (N, D), if the network predicts them."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes or labels."""
        return self.spec.names

    @property
    def target_class(self) -> Array:
        """Multiclass only: the class of the target, the likeliest one of probabilities (N,)."""
        return self.target if self.target.ndim == 1 else self.target.argmax(1)

    @property
    def confidence(self) -> Array:
        """The probability of each predicted class (N,) or label (N, K)."""
        assert self.probabilities is not None  # noqa: S101 -- for the type checker
        if self.spec.task is Task.MULTICLASS:
            return self.probabilities[np.arange(len(self)), self.prediction]
        confidence: Array = np.where(self.prediction == 1, self.probabilities, 1 - self.probabilities)
        return confidence

    @property
    def mislabelled(self) -> Array:
        """Whether the target differs from the truth, by label noise or as an outlier (N,)."""
        target = self.target_class if self.spec.task is Task.MULTICLASS else self.target
        differs: Any = target != self.truth
        mislabelled: Array = differs.reshape(len(self), -1).any(axis=1)
        return mislabelled

    def highest_loss(self, count: int) -> Array:
        """Rows of the highest losses, highest first; ties in the order of the data set."""
        return np.argsort(-self.loss, kind="stable")[:count]


def interpret_outputs(learner: Learner, split: SplitOutputs) -> Predictions:
    """Turn the outputs of a split into predictions, as the learner's loss defines them.

    Raises:
        LabError: some outputs are NaN or infinite.
    """
    invalid = ~torch.isfinite(split.outputs.flatten(1)).all(1)
    if invalid.any():
        first = int(split.index[invalid][0])
        raise LabError(
            f"the outputs of {int(invalid.sum()):,} of {len(invalid):,} examples are NaN or infinite, the first of "
            f"example {first}: the run diverged, or the inputs are not finite; try --ckpt last or best"
        )
    spec = learner.spec
    outputs = split.outputs.to(next(learner.parameters()).device)
    with torch.no_grad():
        scores = learner.predictions(outputs)
        probabilities = learner.probabilities(outputs)
        loss = learner.loss
        deviation = loss.variances(outputs).sqrt() if isinstance(loss, GaussianNLL) else None
    prediction = scores
    if probabilities is not None:  # the same decisions as those of the metrics
        multiclass = spec.task is Task.MULTICLASS
        prediction = scores.argmax(1) if multiclass else (probabilities > 0.5).long()
        probabilities = normalise_rows(probabilities.double()) if multiclass else probabilities
    columns: dict[str, Tensor | None] = {"index": split.index, "truth": split.truth, "target": split.target}
    columns |= {"loss": split.loss, "prediction": prediction, "probabilities": probabilities, "deviation": deviation}
    columns["scores"] = scores if spec.task is Task.MULTICLASS else None
    arrays: dict[str, Array] = {
        name: (column.double() if column.is_floating_point() else column).cpu().numpy()
        for name, column in columns.items()
        if column is not None
    }
    if spec.task in {Task.BINARY, Task.MULTILABEL}:
        arrays["truth"] = arrays["truth"].astype(np.int64)
        if spec.kind is Kind.BINARY and np.isin(arrays["target"], (0, 1)).all():
            arrays["target"] = arrays["target"].astype(np.int64)
    return Predictions(spec, **arrays)
