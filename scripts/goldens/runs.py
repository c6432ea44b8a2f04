"""Tiny runs, one for each loss of conf/loss and one with convolutions, and the bits they end with."""

import hashlib
import shutil
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from goldens.bits import Bits
from losslab.losses import catalog
from losslab.runs import RunFolder
from losslab.targets import Kind
from losslab.training import experiment
from losslab.training.callbacks.checkpoint import BestAndLastCheckpoint
from losslab.training.config import compose

HALFWAY = 4
"""The step after which a run is resumed, the first of its second epoch."""
LEAN = [
    "trainer=cpu", "trainer.enable_progress_bar=false", "trainer.max_epochs=2", "trainer.limit_val_batches=0",
    "logger=none", "callbacks=none", "examine=false", "test=false", "optimizer=momentum",
]  # fmt: skip
IMAGES = ["data=digits", "data.size=8", "data.batch_size=500"]
SMALL = ["model=mlp", "model.hidden=[16]", "loss=cross_entropy"]


@cache
def _composed(*overrides: str) -> dict[str, Any]:
    return compose([*LEAN, *overrides], "unused")


def configuration(name: str, teacher: Path) -> dict[str, Any]:
    """Of the run of a loss. What all have in common is composed once: composing takes longer than training."""
    if name == "cifar_cnn":
        return _composed("model=cifar_cnn", "data=digits", "data.batch_size=500", "loss=cross_entropy")
    if name == "distillation":
        return _composed(*SMALL[:2], *IMAGES, "loss=distillation", f"teacher={teacher}")
    if name in ("poisson_nll", "tweedie"):
        data = ["data=counts", "data.batch_size=120"]
    elif {Kind.INDEX, Kind.PROBABILITIES, Kind.BINARY} & set(catalog.wants(name)):
        data = IMAGES
    else:
        data = ["data=diabetes", "data.batch_size=120"]
    return _composed(*SMALL, *data) | {"loss": catalog.config(name)}


class Steps(Callback):
    """Notes the loss of each step, and keeps the run folder as it was halfway."""

    def __init__(self, folder: Path, kept: Path | None) -> None:
        self.folder, self.kept = folder, kept
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        """Have step `HALFWAY` saved, and copy what it has left."""
        saver = next(callback for callback in trainer.callbacks if isinstance(callback, BestAndLastCheckpoint))
        saver.every_seconds = 0 if trainer.global_step == HALFWAY - 1 else 1e9
        if self.kept is not None and trainer.global_step == HALFWAY:
            shutil.copytree(self.folder, self.kept)

    def on_train_batch_end(self, *given: Any) -> None:
        """Note it."""
        self.losses.append(given[2]["loss"].item())


def trained(config: dict[str, Any], folder: Path, *, keep: Path | None = None) -> Bits:
    """Train in a folder, or go on with the run that lies in it."""
    saver = {
        "_target_": "losslab.training.callbacks.checkpoint.BestAndLastCheckpoint",
        "run_dir": str(folder),
        "every_seconds": 1e9,
    }
    built = experiment.build(config | {"run_dir": str(folder), "callbacks": {"checkpoints": saver}})
    steps = Steps(folder, keep)
    built.trainer.callbacks.insert(0, steps)  # type: ignore[attr-defined]
    experiment.run(built, resume=folder.exists())
    weights = hashlib.sha256()
    for name, value in torch.load(RunFolder(folder).weights, weights_only=True).items():
        weights.update(name.encode() + value.contiguous().numpy().tobytes())
    return {"losses": steps.losses, "weights": weights.hexdigest()}


def whole(place: Path, names: Collection[str]) -> Iterator[tuple[str, Bits]]:
    """Train in this folder → each run with its bits. `resumed` goes on with them halfway."""
    teacher = place / "teacher"
    trained(configuration("cross_entropy", teacher), teacher)
    for name in names:
        yield name, trained(configuration(name, teacher), place / name, keep=_halfway(place, name))


def resumed(place: Path, name: str) -> Bits:
    """The bits of the run that was kept as it was halfway."""
    return trained(configuration(name, place / "teacher"), _halfway(place, name))


def _halfway(place: Path, name: str) -> Path:
    return place / f"{name} halfway"


def names() -> list[str]:
    """Of all runs."""
    return [*catalog.names(), "cifar_cnn"]
