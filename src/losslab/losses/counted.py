"""The base of losses that make something of how often each class occurs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from losslab.errors import LabError
from losslab.losses.class_loss import ClassLoss
from losslab.losses.class_weights import Rule


class Counted(ClassLoss):
    """A loss of one class among C that must know how often each occurs in the training data.

    A class that does not occur is taken to be as rare as the rarest that does, so that nothing becomes infinite.

    Args:
        counts: n, how often each class occurs (C,); None to learn it from the data, through `set_class_counts`.
        weight: one weight a class (C,), or a rule that makes them of the class counts.
        ignore_index: examples of this index count neither in the sum nor in the mean.

    Raises:
        LabError: the counts given are no numbers ≥ 0, or all 0.
    """

    counts: Tensor | None

    def __init__(
        self,
        counts: Sequence[int] | Tensor | None = None,
        weight: Sequence[float] | Tensor | Rule | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(weight, ignore_index)
        self.by_hand = counts is not None
        self.register_buffer("counts", None, persistent=False)
        if counts is not None:
            self._learn(torch.as_tensor(counts if isinstance(counts, Tensor) else list(counts)))

    def set_class_counts(self, counts: Tensor) -> None:
        """Learn the counts, and make the weights of them if a rule was given, unless counts were given by hand."""
        if not self.by_hand:
            self._learn(counts)

    def frequencies(self, outputs: Tensor) -> Tensor:
        """The counts (C,) in the precision of the outputs (N, C), none of them 0.

        Raises:
            LabError: they are not known, or of more or fewer classes.
        """
        name = type(self).__name__
        if self.counts is None:
            message = f"{name} does not know the class counts: give counts=[...], or call set_class_counts(counts)"
            raise LabError(message)
        if len(self.counts) != outputs.shape[1]:
            message = f"{name}: counts must hold one number a class: {len(self.counts)} for {outputs.shape[1]} classes"
            raise LabError(message)
        return self.counts.to(outputs.dtype)

    def _learn(self, counts: Tensor) -> None:
        numbers = counts.double()
        if numbers.ndim != 1 or not (numbers >= 0).all() or not numbers.any():
            message = f"{type(self).__name__}: counts must hold one number ≥ 0 a class, not all of them 0: got {counts}"
            raise LabError(message)
        self.counts = numbers.clamp(min=float(numbers[numbers > 0].min()))
        super().set_class_counts(counts)
