"""The callback that records training dynamics: snapshots of fixed training examples over the epochs."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer

from losslab.analysis.dynamics import recording
from losslab.analysis.dynamics.figures import draw_all
from losslab.analysis.dynamics.record import Record, Snapshot
from losslab.data.batch import Batch, Examples
from losslab.data.loader import Loader
from losslab.data.module import ExperimentDataModule
from losslab.data.transforms import encode_classes
from losslab.errors import LabError
from losslab.models.learner import Learner
from losslab.runs import RunFolder
from losslab.training.callbacks.checkpoint import is_last_epoch
from losslab.training.callbacks.checkpoint_state import GrowingState
from losslab.training.callbacks.disk import BestEffortWriter
from losslab.training.callbacks.history import save_figure
from losslab.training.callbacks.tensorboard import summary_writers

logger = logging.getLogger(__name__)
_DEFAULT_SNAPSHOTS = 20


class Dynamics(GrowingState):
    """Records outputs, loss, margin and gradient norm of some training examples in dynamics.npz, and draws figures.

    A snapshot is taken before the first step, every few epochs and at the end, without augmentation and in evaluation
    mode. It does not change the training, and does not depend on the number of processes. `Snapshot` describes the
    recorded values.

    Args:
        run_dir: the run folder.
        title: the title of the figures.
        examples: the maximum number of examples to record.
        every: the number of epochs between two snapshots; None for about twenty snapshots in total.
        seed: the seed for the choice of examples.
        every_seconds: the minimum time between two writes of the file, which is also written when training ends or
            fails.
        draw: whether to draw the figures at the end of training.
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
        for name, value in (("examples", examples), ("every", 1 if every is None else every)):
            if not isinstance(value, int) or value < 1:
                raise LabError(f"callbacks.dynamics.{name} must be an integer of at least 1, got {value!r}")
        self.folder, self.title = RunFolder(Path(run_dir)), title
        self._files = BestEffortWriter(self.folder)
        self.examples, self.seed, self.every_seconds, self.draw = examples, seed, every_seconds, draw
        self.snapshots: list[Snapshot] = []
        self._every, self._thins = every or 1, every is None
        self._last_write = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        if self._thins:
            steps = trainer.estimated_stepping_batches  # infinite if the number of epochs is not known
            per_epoch = max(1.0, float(trainer.num_training_batches) / trainer.accumulate_grad_batches)
            self._every = 1 if math.isinf(steps) else max(1, math.ceil(steps / per_epoch / _DEFAULT_SNAPSHOTS))
        self._examples = self._draw_examples(trainer, pl_module)
        self._recorded = recording.describe_examples(pl_module, self._batches(trainer, pl_module))
        if not self.snapshots:  # not resumed
            self._take_snapshot(trainer, pl_module, trainer.current_epoch)

    def frozen_state(self) -> Callable[[], dict[str, Any]]:
        every, snapshots, count = self._every, self.snapshots, len(self.snapshots)

        def state() -> dict[str, Any]:
            # torch.load(weights_only=True) reads tensors, but not arrays. The key is "looks" in existing checkpoints.
            fields = [vars(snapshot) for snapshot in snapshots[:count]]
            return {"every": every, "looks": [{name: _as_tensor(each) for name, each in f.items()} for f in fields]}

        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._every = state_dict["every"]
        self.snapshots = [
            Snapshot(**{name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in fields})
            for fields in (snapshot.items() for snapshot in state_dict["looks"])
        ]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch + 1
        # In on_train_end, averaged weights may already have replaced the trained weights.
        if epoch % self._every == 0 or is_last_epoch(trainer):
            self._take_snapshot(trainer, pl_module, epoch)

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        if self.snapshots[-1].step != trainer.global_step:  # stopped by max_time
            self._take_snapshot(trainer, pl_module, trainer.current_epoch + 1)
        self._files.require(self.folder.dynamics, lambda: self._write(pl_module))
        if self.draw:
            for name, drawn in draw_all({self.title: self.record(pl_module)}).items():
                logger.info("%-11s %s", "dynamics", drawn.findings[0])
                save_figure(drawn.figure, name, trainer, self._files)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        with self._files.during_exception(self.folder.dynamics):
            if self.snapshots:
                self._write(pl_module)

    def record(self, learner: Learner) -> Record:
        """Return the record of all snapshots so far."""
        name = str(getattr(learner.loss, "name", type(learner.loss).__name__))
        layers, line = recording.layer_titles(learner.network), recording.LINE
        return Record.of(learner.spec.task.value, name, layers, line, self._recorded, self.snapshots)

    def _draw_examples(self, trainer: Trainer, learner: Learner) -> Examples:
        """Draw the examples to record from the training split, without those to which the loss gives weight 0.

        With overfit_batches, they are drawn from the batches that are used for training.

        Raises:
            LabError: all drawn examples have weight 0.
        """
        data: ExperimentDataModule = trainer.datamodule  # type: ignore[attr-defined]
        source, size = data.splits["train"], data.splits["train"].size
        if trainer.overfit_batches:  # type: ignore[attr-defined]
            size = min(size, int(trainer.num_training_batches) * (data.batch_size or size))
        drawn = source.take(recording.draw_rows(size, self.examples, self.seed).to(source.device))
        batch = Batch(*drawn) if data.mix is None else encode_classes(learner.spec.targets, Batch(*drawn))
        target = learner.encode_target(batch.target.to(learner.device), torch.float32)
        rows = (learner.loss.example_weight(target) > 0).to(drawn.device).nonzero()[:, 0]
        if not len(rows):
            raise LabError("callbacks.dynamics has no example to record: all drawn examples have weight 0 in the loss")
        return drawn.take(rows)

    def _batches(self, trainer: Trainer, learner: Learner) -> Iterator[Batch]:
        """Yield the recorded examples as in training, but without augmentation. The batch size is similar."""
        data: ExperimentDataModule = trainer.datamodule  # type: ignore[attr-defined]
        loader = Loader(
            self._examples,
            max(32, data.batch_size or self._examples.size),
            transform=data.transform,
            mix=None if data.mix is None else partial(encode_classes, learner.spec.targets),
            device=learner.device if learner.device.type == "cuda" else torch.device("cpu"),
        )
        convert, move = trainer.precision_plugin.convert_input, trainer.strategy.batch_to_device
        return (move(convert(batch), learner.device) for batch in loader)

    def _take_snapshot(self, trainer: Trainer, learner: Learner, epoch: int) -> None:
        context = trainer.precision_plugin.forward_context()
        batches = self._batches(trainer, learner)
        self.snapshots.append(recording.take_snapshot(learner, batches, epoch, trainer.global_step, context))
        if self._thins and len(self.snapshots) > 2 * _DEFAULT_SNAPSHOTS:  # the number of epochs was not known
            self.snapshots, self._every = self.snapshots[::2], 2 * self._every
        self._log(trainer, self.record(learner))
        if time.monotonic() - self._last_write >= self.every_seconds:
            self._files.attempt(self.folder.dynamics, lambda: self._write(learner))

    def _log(self, trainer: Trainer, record: Record) -> None:
        for each in trainer.loggers:
            each.log_metrics(record.newest_scalars(), trainer.global_step)
        histograms = {"loss": record.loss[-1], "residual" if record.is_regression else "margin": record.margin[-1]}
        for writer in summary_writers(trainer):
            for name, values in histograms.items():
                if np.isfinite(values).all():
                    writer.add_histogram(f"dynamics/{name}", values, trainer.global_step)

    def _write(self, learner: Learner) -> None:
        self._last_write = time.monotonic()
        self.record(learner).save(self.folder.dynamics)


def _as_tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
