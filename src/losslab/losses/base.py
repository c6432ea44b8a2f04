"""The base of every loss: it scores each example, and `forward` averages the scores."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.targets import Kind


class Loss(nn.Module, ABC):
    """A loss scores each example; `forward` is the weighted mean of the scores, a drop-in criterion for any loop.

    A subclass declares `wants`, the kinds of target it takes in order of preference, and writes `score`. It may
    override `example_weight`, `to_probabilities` and `outputs_per_target`. A loss is a pure function of tensors: no
    state between calls, no branching on values. Its numeric parameters may be 0-dim tensors (see `hold`).

    Shapes: outputs are (N, C) with an INDEX target (N,), and have the target's own shape with any other kind.
    """

    wants: ClassVar[tuple[Kind, ...]]
    outputs_per_target: ClassVar[int] = 1

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

    def total(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Σ per_example and Σ example_weight: what sums over batches and ranks, where means do not → (), ()."""
        scores = self.per_example(outputs, target)
        return scores.sum(), self.example_weight(target).to(scores.dtype).sum()

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The weighted mean of the batch → (). An empty batch gives NaN, as torch's own losses do."""
        scores, weights = self.total(outputs, target)
        return scores / weights

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """What the outputs (N, C) of a classifier trained with this loss mean, for metrics → (N, C)."""
        return torch.softmax(outputs, dim=1)

    def hold(self, name: str, value: float | Tensor) -> None:
        """Keep a numeric parameter: floats exactly as they are, tensors as buffers that follow the device.

        The buffers are not persistent: a parameter of the loss is configuration, not something learnt.
        """
        if isinstance(value, Tensor):
            self.register_buffer(name, value, persistent=False)
        else:
            setattr(self, name, float(value))

    def _fitting(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        name = type(self).__name__
        if outputs.dtype in (torch.float16, torch.bfloat16):
            outputs = outputs.float()
        if target.dtype.is_floating_point:
            if target.shape != outputs.shape:
                message = (
                    f"{name}: outputs {tuple(outputs.shape)} and target {tuple(target.shape)} must have one shape "
                    f"(they would broadcast or mismatch): reshape the target, e.g. target.view(outputs.shape)"
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
        return outputs, target


def mean_over_outputs(values: Tensor) -> Tensor:
    """Element losses (N, ...) → (N,), so that the mean over examples is torch's mean over elements."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def at_least(name: str, value: float | Tensor, low: float, *, strictly: bool = False) -> float | Tensor:
    """The value of a loss's parameter, checked. Tensors pass: to look into one would be to branch on values.

    Raises:
        LabError: the value lies outside the range in which the loss is defined.
    """
    if not isinstance(value, Tensor) and not (value > low if strictly else value >= low):
        sign = ">" if strictly else "≥"
        message = f"{name} must be {sign} {low:g}, got {value!r}"
        raise LabError(message)
    return value
