"""The callback that records training dynamics: snapshots of fixed training examples over the epochs."""

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

from losslab.analysis.dynamics import metrics, recording
from losslab.analysis.dynamics.record import Record, Snapshot
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

logger = logging.getLogger(__name__)
_DEFAULT_SNAPSHOTS = 20


class RecordedExamples:
    """Examples of the training split, read once, without those that the loss ignores.

    Args:
        trainer: with its data set up.
        learner: on its device.
        count: the most examples to record.
        seed: of the draw. Under overfit_batches the draw is from the batches that are trained on.

    Raises:
        LabError: the loss ignores all examples drawn.
    """

    def __init__(self, trainer: Trainer, learner: Learner, count: int, seed: int) -> None:
        data: ExperimentDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self.trainer, self.learner, self.data = trainer, learner, data
        source, size = data.splits["train"], data.splits["train"].size
        if trainer.overfit_batches:  # type: ignore[attr-defined]
            size = min(size, int(trainer.num_training_batches) * (data.batch_size or size))
        drawn = source.take(recording.draw_rows(size, count, seed).to(source.device))
        self._mix = None if data.mix is None else partial(encode_classes, learner.spec.targets)
        batch = Batch(*drawn) if self._mix is None else self._mix(Batch(*drawn))
        counted = recording.has_weight(learner, batch.target.to(learner.device)).to(drawn.device)
        if not counted.any():
            raise LabError(
                "callbacks.dynamics has no example to record: the loss gives each of those drawn the weight 0"
            )
        self.examples = drawn.take(counted.nonzero()[:, 0])

    def batches(self) -> Iterator[Batch]:
        """All examples as training sees them, but unaugmented, in batches about as large as in training."""
        device = self.learner.device
        loader = Loader(
            self.examples,
            max(32, self.data.batch_size or self.examples.size),
            transform=self.data.transform,
            mix=self._mix,
            device=device if device.type == "cuda" else torch.device("cpu"),
        )
        convert, move = self.trainer.precision_plugin.convert_input, self.trainer.strategy.batch_to_device
        return (move(convert(batch), device) for batch in loader)


class Dynamics(Callback):
    """Records outputs, loss, margin and gradient norm of some training examples in dynamics.npz, and draws them.

    It takes a snapshot before the first step, every few epochs and at the end, unaugmented and in evaluation mode. The
    run does not change, and the snapshots do not depend on the number of processes. `analysis.dynamics.record` and
    `metrics` define the numbers.

    Args:
        run_dir: the run folder.
        title: of the figures.
        examples: the most examples to record.
        every: epochs between two snapshots; None for about twenty snapshots in all.
        seed: of the draw of examples.
        every_seconds: the least time between two writes of the file. It is also written when training ends or fails.
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
        for name, value in (("examples", examples), ("every", every)):
            if (value is None and name != "every") or (value is not None and (not isinstance(value, int) or value < 1)):
                raise LabError(f"callbacks.dynamics.{name} must be a whole number, 1 or more: got {value!r}")
        self.folder, self.title = RunFolder(Path(run_dir)), title
        self._files = BestEffortWriter(self.folder)
        self.examples, self.seed, self.every_seconds = examples, seed, every_seconds
        self.draw = draw
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
        self._recorded = RecordedExamples(trainer, pl_module, self.examples, self.seed)
        self._description = recording.describe_examples(pl_module, self._recorded.batches())
        if not self.snapshots:  # not resumed
            self._take_snapshot(trainer, pl_module, trainer.current_epoch)

    def state_dict(self) -> dict[str, Any]:
        # Tensors instead of arrays: torch.load(weights_only=True) reads them.
        looks = [{name: _to_tensor(value) for name, value in vars(each).items()} for each in self.snapshots]
        return {"every": self._every, "looks": looks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._every = state_dict["every"]
        looks = state_dict["looks"]
        self.snapshots = [Snapshot(**{name: _to_array(value) for name, value in each.items()}) for each in looks]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch + 1
        # Not in on_train_end: by then averaged weights may have replaced the trained ones.
        if epoch % self._every == 0 or is_last_epoch(trainer):
            self._take_snapshot(trainer, pl_module, epoch)

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        if self.snapshots[-1].step != trainer.global_step:  # stopped by max_time
            self._take_snapshot(trainer, pl_module, trainer.current_epoch + 1)
        self._files.require(self.folder.dynamics, lambda: self._write(pl_module))
        if self.draw:
            from losslab.analysis.dynamics.figures import draw_all  # noqa: PLC0415 -- imports matplotlib

            for name, drawn in draw_all({self.title: self.record(pl_module)}).items():
                logger.info("%-11s %s", "dynamics", drawn.findings[0])
                save_figure(drawn.figure, name, trainer, self._files)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        with self._files.during_exception(self.folder.dynamics):
            if self.snapshots:
                self._write(pl_module)

    def record(self, learner: Learner) -> Record:
        """The record of all snapshots so far."""
        name = str(getattr(learner.loss, "name", type(learner.loss).__name__))
        layers, line = recording.layer_titles(learner.network), recording.LINE
        return Record.of(learner.spec.task.value, name, layers, line, self._description, self.snapshots)

    def _take_snapshot(self, trainer: Trainer, learner: Learner, epoch: int) -> None:
        context = trainer.precision_plugin.forward_context()
        batches = self._recorded.batches()
        self.snapshots.append(recording.take_snapshot(learner, batches, epoch, trainer.global_step, context))
        if self._thins and len(self.snapshots) > 2 * _DEFAULT_SNAPSHOTS:  # the number of epochs was not known
            self.snapshots, self._every = self.snapshots[::2], 2 * self._every
        self._log(trainer, self.record(learner))
        if time.monotonic() - self._last_write >= self.every_seconds:
            self._files.attempt(self.folder.dynamics, lambda: self._write(learner))

    def _log(self, trainer: Trainer, record: Record) -> None:
        for each in trainer.loggers:
            each.log_metrics(metrics.newest_scalars(record), trainer.global_step)
        histograms = {"loss": record.loss[-1], "residual" if record.is_regression else "margin": record.margin[-1]}
        for writer in summary_writers(trainer):
            for name, values in histograms.items():
                if np.isfinite(values).all():
                    writer.add_histogram(f"dynamics/{name}", values, trainer.global_step)

    def _write(self, learner: Learner) -> None:
        self._last_write = time.monotonic()
        self.record(learner).save(self.folder.dynamics)


def _to_tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _to_array(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
