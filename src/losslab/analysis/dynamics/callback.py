"""The training examples that a callback looks at again and again.

Looks at the same training examples over and over, and keeps what the loss does to each of them.
"""

import logging
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from losslab.analysis.dynamics import measures, recording
from losslab.analysis.dynamics.gradients import LINE, titles
from losslab.analysis.dynamics.record import Look, Record
from losslab.data.batch import Batch
from losslab.data.loader import Loader
from losslab.data.module import ExperimentDataModule
from losslab.data.transforms import encode_classes
from losslab.errors import LabError
from losslab.models.learner import Learner
from losslab.runs import RunFolder
from losslab.training.callbacks.checkpoint import is_last_epoch
from losslab.training.callbacks.disk import BestEffortWriter
from losslab.training.callbacks.history import save_figure
from losslab.training.callbacks.tensorboard import summary_writers


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
        data: ExperimentDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self.trainer, self.learner, self.data = trainer, learner, data
        source = data.splits["train"]
        size = source.size
        if trainer.overfit_batches:  # type: ignore[attr-defined]
            size = min(size, int(trainer.num_training_batches) * (data.batch_size or size))
        held = source.take(recording.drawn(size, count, seed).to(source.device))
        self._spell = None if data.mix is None else partial(encode_classes, learner.facts.targets)
        batch = Batch(*held) if self._spell is None else self._spell(Batch(*held))
        counted = recording.counts(learner, batch.target.to(learner.device)).to(held.device)
        if not counted.any():
            raise LabError(
                "callbacks.dynamics has no example to watch: the loss gives each of those drawn the weight 0"
            )
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


logger = logging.getLogger(__name__)
_LOOKS = 20


class Dynamics(Callback):
    """Keeps outputs, loss, margin and gradient norm of some training examples in dynamics.npz, and draws them.

    It looks before the first step, every few epochs and at the end, unaugmented and in evaluation mode. The run is not
    changed by it, nor are the looks by the number of processes. `losslab.analysis.dynamics` defines the numbers.

    Args:
        run_dir: the run folder.
        title: of the figures.
        examples: how many are watched at most.
        every: epochs from one look to the next; None for about twenty looks.
        seed: of which examples are drawn.
        every_seconds: the least time between two writes of the file, which is also written when training ends or fails.
        draw: whether to draw when training has ended.
    """

    def __init__(
        self,
        run_dir: str,
        title: str = "",
        examples: int = 2000,
        every: int | None = None,
        seed: int = 0,
        every_seconds: float = 30.0,
        *,
        draw: bool = True,
    ) -> None:
        for name, value in (("examples", examples), ("every", every)):
            if (value is None and name != "every") or (value is not None and (not isinstance(value, int) or value < 1)):
                raise LabError(f"callbacks.dynamics.{name} must be a whole number, 1 or more: got {value!r}")
        self.folder, self.title = RunFolder(Path(run_dir)), title
        self._files = BestEffortWriter(self.folder)
        self.examples, self.seed, self.every_seconds = examples, seed, every_seconds
        self.draw = draw
        self.looks: list[Look] = []
        self._every, self._thins = every or 1, every is None
        self._written = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        if self._thins:
            self._every = max(1, math.ceil(_epochs(trainer) / _LOOKS))
        self._watched = Watched(trainer, pl_module, self.examples, self.seed)
        self._fixed = recording.examples(pl_module, self._watched.batches())
        if not self.looks:  # else the run is resumed
            self._look(trainer, pl_module, trainer.current_epoch)

    def state_dict(self) -> dict[str, Any]:
        looks = [{name: _tensor(value) for name, value in vars(look).items()} for look in self.looks]
        return {"every": self._every, "looks": looks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._every = state_dict["every"]
        self.looks = [Look(**{name: _array(value) for name, value in look.items()}) for look in state_dict["looks"]]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch + 1
        # In its last epoch, since afterwards a moving average takes the place of the weights that were trained.
        if epoch % self._every == 0 or is_last_epoch(trainer):
            self._look(trainer, pl_module, epoch)

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        if self.looks[-1].step != trainer.global_step:  # the time is up
            self._look(trainer, pl_module, trainer.current_epoch + 1)
        self._files.require(self.folder.dynamics, lambda: self._write(pl_module))
        if self.draw:
            self._draw(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        with self._files.during_exception(self.folder.dynamics):
            if self.looks:
                self._write(pl_module)

    def record(self, learner: Learner) -> Record:
        """All looks so far."""
        name = str(getattr(learner.loss, "name", type(learner.loss).__name__))
        layers = titles(learner.network)
        return Record.of(learner.facts.task.value, name, layers, LINE, self._fixed, self.looks)

    def _look(self, trainer: Trainer, learner: Learner, epoch: int) -> None:
        context = trainer.precision_plugin.forward_context()
        self.looks.append(recording.look(learner, self._watched.batches(), epoch, trainer.global_step, context))
        if self._thins and len(self.looks) > 2 * _LOOKS:  # nobody knew when it would end
            self.looks, self._every = self.looks[::2], 2 * self._every
        self._log(trainer, self.record(learner))
        if time.monotonic() - self._written >= self.every_seconds:
            self._files.attempt(self.folder.dynamics, lambda: self._write(learner))

    def _log(self, trainer: Trainer, record: Record) -> None:
        for writer in trainer.loggers:
            writer.log_metrics(measures.scalars(record), trainer.global_step)
        histograms = {"loss": record.loss[-1], "residual" if record.of_values else "margin": record.margin[-1]}
        for board in summary_writers(trainer):
            for name, values in histograms.items():
                if np.isfinite(values).all():
                    board.add_histogram(f"dynamics/{name}", values, trainer.global_step)

    def _write(self, learner: Learner) -> None:
        self._written = time.monotonic()
        self.record(learner).save(self.folder.dynamics)

    def _draw(self, trainer: Trainer, learner: Learner) -> None:
        from losslab.analysis.dynamics.figures import pictures  # noqa: PLC0415 -- needed once

        for name, drawn in pictures({self.title: self.record(learner)}).items():
            logger.info("%-11s %s", "dynamics", drawn.findings[0])
            save_figure(drawn.figure, name, trainer, self._files)


def _tensor(value: Any) -> Any:
    """A checkpoint holds tensors, which can be read without running what a stranger wrote."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _array(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value


def _epochs(trainer: Trainer) -> float:
    """How many there will be; 0 if nobody knows."""
    steps = trainer.estimated_stepping_batches
    if math.isinf(steps):
        return 0
    batches = float(trainer.num_training_batches) / trainer.accumulate_grad_batches
    return steps / max(1.0, batches)
