"""The predictions of a network for all examples of a split, with their truth, target and loss."""

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
    """The predictions for all examples of a split, sorted by `index`. Floating-point arrays are float64."""

    spec: DataSpec
    index: Array
    """Index of each example in the data set, int64 (N,)."""
    truth: Array
    """True classes (N,), 0/1 labels (N, K) or values (N, D)."""
    target: Array
    """Targets of the loss: like the truth, or class probabilities (N, C)."""
    prediction: Array
    """Predicted classes (N,), 0/1 labels (N, K) or values (N, D)."""
    loss: Array | None
    """Loss of each example (N,); None if the loss scores only whole batches."""
    probabilities: Array | None = None
    """Probabilities of classes (N, C), whose rows sum to 1, or of labels (N, K); None for a regression."""
    scores: Array | None = None
    """Class scores (N, C), whose argmax is the predicted class; None unless the task is multiclass."""
    deviation: Array | None = None
    """Predicted standard deviations (N, D); None if the network does not predict them."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def target_class(self) -> Array:
        """The class of each target (N,); of class probabilities, the most likely class. Multiclass only."""
        return self.target if self.target.ndim == 1 else self.target.argmax(1)

    @property
    def confidence(self) -> Array:
        """Probability of the predicted class of each example (N,), or of each predicted 0/1 label (N, K)."""
        assert self.probabilities is not None  # noqa: S101 -- for the type checker
        if self.spec.task is Task.MULTICLASS:
            return self.probabilities[np.arange(len(self)), self.prediction]
        return np.where(self.prediction == 1, self.probabilities, 1 - self.probabilities)

    @property
    def mislabelled(self) -> Array:
        """Whether the target of each example differs from its truth (label noise or an outlier), bool (N,)."""
        target = self.target_class if self.spec.task is Task.MULTICLASS else self.target
        differs = np.reshape(target != self.truth, (len(self), -1))
        return np.asarray(differs.any(axis=1))

    def highest_loss(self, count: int) -> Array:
        """Return the rows of the examples with the highest losses, highest first; equal losses keep their order.

        There are none if the examples have no losses of their own.
        """
        if self.loss is None:
            return np.zeros(0, dtype=np.int64)
        return np.argsort(-self.loss, kind="stable")[:count]


def interpret_outputs(learner: Learner, split: SplitOutputs) -> Predictions:
    """Convert the outputs for a split to predictions. The learner's loss defines what the outputs mean.

    Raises:
        LabError: some outputs are NaN or infinite.
    """
    invalid = ~torch.isfinite(split.outputs.flatten(1)).all(1)
    if invalid.any():
        first = int(split.index[invalid][0])
        raise LabError(
            f"the outputs of {int(invalid.sum()):,} of {len(invalid):,} examples are NaN or infinite, the first is "
            f"example {first}: the run diverged, or its inputs are not finite; try --ckpt last or --ckpt best"
        )
    spec = learner.spec
    outputs = split.outputs.to(next(learner.parameters()).device)
    with torch.no_grad():
        scores, probabilities, loss = learner.predictions(outputs), learner.probabilities(outputs), learner.loss
        deviation = loss.variances(outputs).sqrt() if isinstance(loss, GaussianNLL) else None
    prediction = scores
    if probabilities is not None:  # the same decisions as in the metrics
        multiclass = spec.task is Task.MULTICLASS
        prediction = scores.argmax(1) if multiclass else (probabilities > 0.5).long()
        probabilities = normalise_rows(probabilities.double()) if multiclass else probabilities
    columns: dict[str, Tensor | None] = {"index": split.index, "truth": split.truth, "target": split.target}
    columns |= {
        "loss": split.loss if loss.scores_examples else None,
        "prediction": prediction,
        "probabilities": probabilities,
        "deviation": deviation,
    }
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
    return Predictions(spec, loss=arrays.pop("loss", None), **arrays)
