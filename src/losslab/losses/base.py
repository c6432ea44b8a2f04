"""The base of every loss: it scores each example, and `forward` averages the scores."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses.card import Card
from losslab.losses.holder import Holder
from losslab.targets import Kind


class Total(NamedTuple):
    """What sums over batches and processes, where means do not."""

    value: Tensor
    """Σ per_example → ()."""
    weight: Tensor
    """Σ example_weight → ()."""
    terms: Mapping[str, Tensor]
    """Of a loss made of several, Σ of each term by its name, unweighted → () each."""


class Loss(Holder, ABC):
    """A loss scores each example; `forward` is the weighted mean of the scores, a drop-in criterion for any loop.

    A subclass declares `wants`, the kinds of target it takes in order of preference, its numeric `hyperparameters`
    (see `Holder`) and its `card`, and writes `score`. It may override the rest below. A loss is a pure function of
    tensors: no state between calls, no branching on values.

    Shapes: outputs are (N, C) with an INDEX target (N,), and have the target's own shape with any other kind. With
    `outputs_per_target` or `views` above 1 they have so many times as many columns.
    """

    wants: tuple[Kind, ...] = ()
    outputs_per_target: int = 1
    """Outputs of the network for each target: 2 for a mean and a variance. Those of one meaning lie side by side."""
    views: int = 1
    """Sets of outputs that are scored together (see `seen`): 2 for a pupil and its teacher."""
    cosine_outputs: bool = False
    """Whether outputs are to be cosines: the network's last layer is then made one (see `losslab.networks.cosine`)."""

    term_names: tuple[str, ...] = ()
    """The names of the terms of a loss made of several, as `total` sums them."""

    @property
    def card(self) -> Card | None:
        """What is claimed of this loss at its parameters; None if nothing is."""
        return None

    @abstractmethod
    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The formula. Called with outputs of at least float32 and (N, ...) shapes that fit → (N,)."""

    def per_example(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss of each example.

        Args:
            outputs: raw outputs of the network; half precision is raised to float32, float64 stays.
            target: of a kind in `wants`.

        Returns:
            (N,), in the precision it was computed in.

        Raises:
            LabError: the shapes would broadcast, or indices are not integers.
        """
        return self.score(*self._fitting(outputs, target))

    def example_weight(self, target: Tensor) -> Tensor:
        """The weight (N,) of each example in the mean: 1, unless the loss weights or ignores classes."""
        return torch.ones(target.shape[:1], device=target.device)

    def total(self, outputs: Tensor, target: Tensor) -> Total:
        """The sums of scores and weights of a batch."""
        scores = self.per_example(outputs, target)
        return Total(scores.sum(), self.example_weight(target).to(scores.dtype).sum(), {})

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The weighted mean of the batch → (). An empty batch gives NaN, as torch's own losses do."""
        total = self.total(outputs, target)
        return total.value / total.weight

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """What the outputs (N, C) of a classifier trained with this loss mean, for metrics → (N, C)."""
        return torch.softmax(outputs, dim=1)

    def to_predictions(self, outputs: Tensor) -> Tensor:
        """The values (N, D), or scores of classes (N, C), that the outputs of the network stand for."""
        return outputs

    def outputs(self, targets: int) -> int:
        """How many outputs a network needs for so many targets."""
        return targets * self.outputs_per_target

    def seen(self, outputs: Tensor, inputs: Tensor, network: nn.Module) -> Tensor:  # noqa: ARG002 -- for subclasses
        """What is scored: the network's outputs (N, C), and beside them whatever else a loss must see (N, views C)."""
        return outputs

    def set_class_counts(self, counts: Tensor) -> None:
        """Learn how often each class occurs in the training data, int64 (C,). Losses that hold others pass it on."""
        for part in self.children():
            if isinstance(part, Loss):
                part.set_class_counts(counts)

    def _check_outputs(self, outputs: Tensor, target: Tensor) -> None:
        """Refuse what torch refuses in words of its own, or computes with all the same.

        Raises:
            LabError: they are no dense tensors, the outputs no real numbers, or of too few or too many dimensions.
        """
        name = type(self).__name__
        for what, given in (("outputs", outputs), ("the target", target)):
            if not isinstance(given, Tensor):
                message = f"{name}: {what} must be a tensor, got a {type(given).__name__}: use torch.as_tensor"
                raise LabError(message)
            if given.layout is not torch.strided:
                message = f"{name}: {what} must be a dense tensor, got {given.layout}: use .to_dense()"
                raise LabError(message)
        if not outputs.dtype.is_floating_point:
            message = f"{name}: outputs must be real numbers such as float32, got {outputs.dtype}: use outputs.float()"
            raise LabError(message)
        of_classes = Kind.INDEX in self.wants or self.wants[:1] == (Kind.PROBABILITIES,)
        if of_classes and outputs.ndim > 2:
            message = (
                f"{name}: outputs must be (N, C), got {tuple(outputs.shape)}: where every pixel is an example, use "
                "outputs.movedim(1, -1).flatten(0, -2) and the target likewise"
            )
            raise LabError(message)
        if outputs.ndim < 1 + of_classes or 0 in outputs.shape[1:]:
            wanted = "(N, C)" if of_classes else "(N, D)"
            message = f"{name}: outputs must be {wanted} with at least one column, got {tuple(outputs.shape)}"
            raise LabError(message)

    def _fitting(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        self._check_outputs(outputs, target)
        name, times = type(self).__name__, self.outputs_per_target * self.views
        if outputs.dtype.itemsize < torch.float32.itemsize:
            outputs = outputs.float()
        if target.dtype.is_floating_point:
            wanted = (*target.shape[:-1], *(times * columns for columns in target.shape[-1:]))
            if wanted != outputs.shape:
                several = "" if times == 1 else f" (the target's shape with {times} times as many columns)"
                message = (
                    f"{name}: outputs {tuple(outputs.shape)} and target {tuple(target.shape)} must have one shape"
                    f"{several} (they would broadcast or mismatch): reshape the target, e.g. target.view(outputs.shape)"
                )
                raise LabError(message)
            return outputs, target.to(outputs.dtype)
        if Kind.INDEX not in self.wants:
            message = (
                f"{name} takes {' or '.join(self.wants)} targets as floats, got {target.dtype}: use "
                f"target.float(), or losslab.targets.encode for class indices"
            )
            raise LabError(message)
        if target.dtype != torch.int64 or target.shape != outputs.shape[:1] or outputs.ndim != 2:
            message = (
                f"{name}: class indices must be int64 (N,) beside outputs (N, C), got {target.dtype} "
                f"{tuple(target.shape)} beside {tuple(outputs.shape)}"
            )
            raise LabError(message)
        if outputs.shape[1] % times:
            message = f"{name} scores {times} outputs for each class: {outputs.shape[1]} columns are no multiple"
            raise LabError(message)
        return outputs, target
