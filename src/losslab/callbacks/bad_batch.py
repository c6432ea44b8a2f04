"""Which batch of validation or test gave the first loss that is NaN or infinite, and in which process."""

import math

import torch
from lightning import Trainer
from torch import Tensor

from losslab.callbacks.culprit import culprit, under
from losslab.callbacks.finding import Finding, Moment, gathered
from losslab.data.batch import Batch
from losslab.errors import NonFiniteError
from losslab.learner import Learner


class FirstBadBatch:
    """Watches the sum of a split's losses grow, and says afterwards which batch made it NaN or infinite.

    Nothing is learnt meanwhile: it is enough to say so once the split was measured, in all processes at once.

    Args:
        split: "val" or "test".
    """

    def __init__(self, split: str) -> None:
        self.split = split
        self._found: Finding | None = None
        self._finite: list[Tensor] = []

    def look(self, trainer: Trainer, learner: Learner, batch: Batch, number: int, *, later: bool) -> None:
        """After a batch. Where reading a flag means waiting for a GPU, it is read `later`, with all the others."""
        total = learner.averages[self.split]["loss"].total
        if later:
            self._finite.append(torch.isfinite(total))
        elif self._found is None and not math.isfinite(total.item()):
            self._found = self._finding(trainer, learner, number, culprit(learner, "loss", batch))

    def check(self, trainer: Trainer, learner: Learner) -> None:
        """After the split.

        Raises:
            NonFiniteError: its loss is NaN or infinite.
        """
        found, flags = self._found, self._finite
        self._found, self._finite = None, []
        if math.isfinite(learner.values.get(f"{self.split}/loss", 0.0)):
            return
        if flags and not (finite := torch.stack(flags)).all():
            where = "the forward pass (trainer=cpu names the layer)"
            found = self._finding(trainer, learner, int((~finite).int().argmax()), where)
        if trainer.world_size > 1:
            found = gathered(found)
        error = NonFiniteError(str(found or self._nothing_found(trainer, learner)))
        error.everywhere = True  # the processes have summed it
        raise error

    def _finding(self, trainer: Trainer, learner: Learner, number: int, where: str) -> Finding:
        epoch = trainer.current_epoch + (self.split == "val")  # testing comes after the last
        moment = Moment(trainer.global_step, epoch, number + 1)
        return Finding(f"{self.split}/loss", where, under(learner, self.split), moment)

    def _nothing_found(self, trainer: Trainer, learner: Learner) -> str:
        return (
            f"step {trainer.global_step} (epoch {trainer.current_epoch + 1}): {self.split}/loss is NaN or infinite "
            f"under {type(learner.loss).__name__} though each batch's sum is finite: does it weigh any example?"
        )
