"""Tiny runs, one for each loss of conf/loss and one with convolutions, and the bits of their losses and weights."""

import hashlib
import shutil
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from golden.bits import Bits
from losslab.losses import catalog
from losslab.runs import RunFolder
from losslab.targets import Kind
from losslab.training import experiment
from losslab.training.callbacks.checkpoint import BestAndLastCheckpoint
from losslab.training.config import compose

RESUMED_AFTER = 4
"""Step after which a run is resumed, the first of its second epoch."""
_SHORT = [
    "trainer=cpu", "trainer.enable_progress_bar=false", "trainer.max_epochs=2", "trainer.limit_val_batches=0",
    "logger=none", "callbacks=none", "examine=false", "test=false", "optimizer=momentum",
]  # fmt: skip
_IMAGES = ["data=digits", "data.size=8", "data.batch_size=500"]
_RECORDED = {"label_smoothing": {"label_smoothing": 0.2}}
"""Hyperparameters of the recorded runs whose default in conf/loss has changed since."""
_SMALL = ["model=mlp", "model.hidden=[16]", "loss=cross_entropy"]


def names() -> list[str]:
    """Names of all runs."""
    return [*catalog.names(), "cifar_cnn"]


@cache
def _compose(*overrides: str) -> dict[str, Any]:
    return compose([*_SHORT, *overrides], "unused")


def configuration(name: str, teacher: Path) -> dict[str, Any]:
    """Configuration of a run. The common part is composed only once, because composing takes longer than training."""
    if name == "cifar_cnn":
        return _compose("model=cifar_cnn", "data=digits", "data.batch_size=500", "loss=cross_entropy")
    if name == "distillation":
        return _compose(*_SMALL[:2], *_IMAGES, "loss=distillation", f"teacher={teacher}")
    if name in ("poisson_nll", "tweedie"):
        data = ["data=counts", "data.batch_size=120"]
    elif {Kind.INDEX, Kind.PROBABILITIES, Kind.BINARY} & set(catalog.make(name).wants):
        data = _IMAGES
    else:
        data = ["data=diabetes", "data.batch_size=120"]
    return _compose(*_SMALL, *data) | {"loss": catalog.config(name) | _RECORDED.get(name, {})}


class _Recorder(Callback):
    """Records the loss of each step, and copies the run folder in the middle of the run."""

    def __init__(self, folder: Path, copy: Path | None) -> None:
        self.folder, self.copy = folder, copy
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        """Save a checkpoint in step `RESUMED_AFTER`, and copy the folder after it."""
        checkpoints = next(each for each in trainer.callbacks if isinstance(each, BestAndLastCheckpoint))
        checkpoints.every_seconds = 0 if trainer.global_step == RESUMED_AFTER - 1 else 1e9
        if self.copy is not None and trainer.global_step == RESUMED_AFTER:
            shutil.copytree(self.folder, self.copy)

    def on_train_batch_end(self, *hook: Any) -> None:
        """Record the loss."""
        self.losses.append(hook[2]["loss"].item())


def train(config: dict[str, Any], folder: Path, *, copy: Path | None = None) -> Bits:
    """Train in a folder, or resume the run in it."""
    checkpoints = {
        "_target_": "losslab.training.callbacks.checkpoint.BestAndLastCheckpoint",
        "run_dir": str(folder),
        "every_seconds": 1e9,
    }
    built = experiment.build(config | {"run_dir": str(folder), "callbacks": {"checkpoints": checkpoints}})
    recorder = _Recorder(folder, copy)
    built.trainer.callbacks.insert(0, recorder)  # type: ignore[attr-defined]
    experiment.run(built, resume=folder.exists())
    weights = hashlib.sha256()
    for name, value in torch.load(RunFolder(folder).weights, weights_only=True).items():
        weights.update(name.encode() + value.contiguous().numpy().tobytes())
    return {"losses": recorder.losses, "weights": weights.hexdigest()}


def train_all(folder: Path, names: Collection[str]) -> Iterator[tuple[str, Bits]]:
    """Train runs below a folder → each name with its bits. `resume` continues their copies."""
    teacher = folder / "teacher"
    train(configuration("cross_entropy", teacher), teacher)
    for name in names:
        yield name, train(configuration(name, teacher), folder / name, copy=_copy(folder, name))


def resume(folder: Path, name: str) -> Bits:
    """Resume the copy of a run → the bits of its remaining steps."""
    return train(configuration(name, folder / "teacher"), _copy(folder, name))


def _copy(folder: Path, name: str) -> Path:
    return folder / f"{name} halfway"
