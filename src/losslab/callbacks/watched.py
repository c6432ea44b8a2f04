"""The training examples that a callback looks at again and again."""

from collections.abc import Iterator
from functools import partial

import torch
from lightning import Trainer

from losslab.data.batch import Batch
from losslab.data.loader import Loader
from losslab.data.mix import spell_out
from losslab.data.module import MemoryDataModule
from losslab.dynamics import watching
from losslab.errors import LabError
from losslab.learner import Learner


class Watched:
    """Some examples of the training split, read once, without those that the loss passes over.

    Args:
        trainer: with its data read.
        learner: on its device.
        count: how many at most.
        seed: of which. Under overfit_batches they are drawn from the batches that are trained on.

    Raises:
        LabError: the loss passes over all of them.
    """

    def __init__(self, trainer: Trainer, learner: Learner, count: int, seed: int) -> None:
        data: MemoryDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self.trainer, self.learner, self.data = trainer, learner, data
        source = data.splits["train"]
        size = source.size
        if trainer.overfit_batches:  # type: ignore[attr-defined]
            size = min(size, int(trainer.num_training_batches) * (data.batch_size or size))
        held = source.take(watching.drawn(size, count, seed).to(source.device))
        self._spell = None if data.mix is None else partial(spell_out, learner.facts.targets)
        batch = Batch(*held) if self._spell is None else self._spell(Batch(*held))
        counted = watching.counts(learner, batch.target.to(learner.device)).to(held.device)
        if not counted.any():
            message = "callbacks.dynamics has no example to watch: the loss gives each of those drawn the weight 0"
            raise LabError(message)
        self.examples = held.take(counted.nonzero()[:, 0])

    def batches(self) -> Iterator[Batch]:
        """All of them as training would see them, but for augmentation; in batches about as large as in training."""
        device = self.learner.device
        loader = Loader(
            self.examples,
            max(32, self.data.batch_size or self.examples.size),
            transform=self.data.transform,
            mix=self._spell,
            device=device if device.type == "cuda" else torch.device("cpu"),
        )
        convert, move = self.trainer.precision_plugin.convert_input, self.trainer.strategy.batch_to_device
        return (move(convert(batch), device) for batch in loader)
