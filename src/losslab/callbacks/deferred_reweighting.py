"""Class weights that come late in training."""

from math import inf

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from losslab.errors import LabError
from losslab.learner import Learner
from losslab.losses.class_loss import ClassLoss
from losslab.losses.class_weights import effective_number


class DeferredReweighting(Callback):
    """Weights the classes of the loss by their effective number from an epoch on (DRW of Cao et al. 2019).

    Features are learnt from the data as they are, and only then the rare classes count more. The paper lowers the
    learning rate at the same epoch. Works for every loss of classes that takes a weight, and for those that a loss is
    made of. Weights are a function of the epoch alone, so a resumed run goes on where it was. They count in the
    validation loss too, and the test loss is measured without.

    Args:
        start: the first weighted epoch, counted from 0, or a fraction below 1 of all epochs: 160 or 0.8 of 200.
        beta: of `losslab.losses.class_weights.effective_number`.

    Raises:
        LabError: start is neither, or beta is outside [0, 1).
    """

    def __init__(self, start: float = 0.8, beta: float = 0.9999) -> None:
        whole = 0 <= start < inf and (start < 1 or start == int(start))
        if isinstance(start, bool) or not whole or not 0 <= beta < 1:
            message = (
                f"callbacks.deferred_reweighting needs a start of 0 or more, an epoch or a fraction below 1 of all, "
                f"and beta in [0, 1): got start={start}, beta={beta}"
            )
            raise LabError(message)
        self.start, self.beta = start, beta
        self._configured: dict[ClassLoss, Tensor | None] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._configured = {
            part: part.weight for part in pl_module.loss.modules() if isinstance(part, ClassLoss) and part.weighable
        }
        counts = getattr(trainer.datamodule, "class_counts", None)  # type: ignore[attr-defined]
        if not self._configured or counts is None:
            message = (
                f"callbacks.deferred_reweighting weights classes, and {type(pl_module.loss).__name__} on these data "
                f"takes no class weights: choose a loss such as ldam or cross_entropy, or leave the callback out"
            )
            raise LabError(message)
        self._first = first_epoch(self.start, trainer.max_epochs)
        self._weight = effective_number(counts, self.beta).to(pl_module.device)

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        # A run that is resumed within an epoch does not start it again.
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Learner) -> None:
        for part, configured in self._configured.items():
            part.weight = self._weight if trainer.current_epoch >= self._first else configured

    def on_fit_end(self, trainer: Trainer, pl_module: Learner) -> None:
        # What is measured from now on is what `evaluate` measures, which knows of no callback.
        for part, configured in self._configured.items():
            part.weight = configured


def first_epoch(start: float, max_epochs: int | None) -> int:
    """The first weighted epoch, counted from 0.

    Raises:
        LabError: a fraction of a run that has no end.
    """
    if start >= 1 or start == 0:
        return int(start)
    if max_epochs is None or max_epochs < 1:
        message = (
            "callbacks.deferred_reweighting.start is a fraction of all epochs: set trainer.max_epochs, or an epoch"
        )
        raise LabError(message)
    return round(start * max_epochs)
