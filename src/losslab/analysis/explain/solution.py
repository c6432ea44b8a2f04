"""A finished run, built again under its weights, and the examples that it is explained on.

The way of a run through its weights, as it was recorded while it was trained. Imports no torch.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path as File
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from losslab.analysis.explain.select_runs import labels, losses
from losslab.data.batch import Batch
from losslab.data.module import split_rows
from losslab.errors import LabError
from losslab.io.untrusted import open_regular_file
from losslab.models.learner import Learner
from losslab.runs import RunFolder, display_path
from losslab.targets import encode
from losslab.training import weights
from losslab.training.experiment import Experiment, rebuild


@dataclass(frozen=True)
class Solution:
    """What a run has learnt."""

    label: str
    """What tells it from the others that are explained with it."""
    loss: str
    """Its loss, told from the others' losses."""
    folder: RunFolder
    config: dict[str, Any]
    experiment: Experiment
    fixed: frozenset[str]
    """The names of the network's weights that were not learnt."""

    @property
    def learner(self) -> Learner:
        """The network and the loss, with what they have learnt."""
        return self.experiment.learner


def solutions(runs: Sequence[RunFolder], checkpoint: str) -> list[Solution]:
    """Runs under the weights of "best" or "last", with their data read.

    Raises:
        LabError: no run or no checkpoint is there, the weights are not finite, or the data cannot be had.
    """
    configs = [run.read_config() for run in runs]
    named = zip(labels(configs), losses(configs), runs, configs, strict=True)
    return [_solution(*run, checkpoint) for run in named]


def _solution(label: str, loss: str, folder: RunFolder, config: dict[str, Any], checkpoint: str) -> Solution:
    experiment = rebuild(folder, config)
    learner, data = experiment.learner, experiment.data
    path = folder.checkpoint(checkpoint)
    weights.load(learner, path)
    wrong = [name for name, value in learner.state_dict().items() if not torch.isfinite(value).all()]
    if wrong:
        raise LabError(
            f"{display_path(path)} holds NaN or infinite numbers ({wrong[0]}): there is nothing to explain but its log"
        )
    data.prepare_data()
    data.setup()
    if data.class_counts is not None:
        learner.loss.set_class_counts(data.class_counts)
    fixed = frozenset(name for name, value in learner.network.named_parameters() if not value.requires_grad)
    learner.to(experiment.trainer.strategy.root_device).eval().requires_grad_(requires_grad=False)
    return Solution(label, loss, folder, config, experiment, fixed)


def batches(solution: Solution, split: str, count: int | None, seed: int) -> list[Batch]:
    """Examples of a split, unaugmented, as the network takes them and on its device.

    Args:
        solution: whose data they are. Only for so many examples does it stay whole afterwards.
        split: "train", "val" or "test".
        count: of the examples, which are drawn at random; None or more than there are for all.
        seed: of that draw.
    """
    data, learner = solution.experiment.data, solution.learner
    source = data.splits[split]
    if count is not None and count < source.size:
        rows = split_rows(source.size, (count,), seed)[0]
        data.splits = {**data.splits, split: source.take(rows.to(source.device))}
    dtype = next((p.dtype for p in learner.network.parameters() if p.is_floating_point()), torch.float32)
    data.val_split = split if split == "train" else "val"
    loader = data.test_dataloader() if split == "test" else data.val_dataloader()
    device = learner.device
    try:
        return [Batch(batch.inputs.to(device, dtype), *(part.to(device) for part in batch[1:])) for batch in loader]
    finally:
        data.val_split = "val"
        data.splits = {**data.splits, split: source}
        data.teardown()


def encoded(learner: Learner, target: Tensor, dtype: torch.dtype) -> Tensor:
    """Targets as the loss takes them, as the learner's own step encodes them."""
    facts = learner.facts
    return encode(target, facts.kind, learner.kind, facts.targets, torch.promote_types(dtype, torch.float32))


Array = np.ndarray[Any, np.dtype[np.float64]]

_DELETE = "delete it to see the surface alone"
_ABSURD = 1e30
"""No run gets as far and ends at a place from which there is something to see."""


@dataclass(frozen=True)
class Path:
    """All weights of a run before its first step and after each of its epochs."""

    epochs: Array
    """(K,), from 0."""
    steps: Array
    """(K,), from 0."""
    weights: Array
    """(K, P)."""

    @classmethod
    def read(cls, run: RunFolder, names: list[str], end: Array | None = None) -> Self | None:
        """The path of a run whose weights have these names; None if none was recorded, or it has no step.

        Args:
            run: whose path.csv it is.
            names: of the weights (P,).
            end: where the path must end (P,), if that is known.

        Raises:
            LabError: the file is damaged, or of another network or run.
        """
        if not run.weight_trajectory.is_file():
            return None
        try:
            header, table = _read(run.weight_trajectory)
        except (OSError, ValueError, csv.Error) as error:
            raise LabError(f"{run.weight_trajectory} is damaged ({error}): {_DELETE}") from error
        if header != ["epoch", "step", *names] or not len(table) or not (np.abs(table) < _ABSURD).all():
            raise LabError(f"{run.weight_trajectory} is not the path of this network: {_DELETE}")
        way = cls(table[:, 0], table[:, 1], table[:, 2:])
        ascending = (np.diff(way.epochs) > 0).all() and (np.diff(way.steps) >= 0).all()
        if not ascending or (end is not None and not np.allclose(way.weights[-1], end, rtol=1e-5, atol=1e-7)):
            raise LabError(f"{run.weight_trajectory} does not end at the weights of {run.last.name}: {_DELETE}")
        return way if len(table) > 1 else None


def _read(path: File) -> tuple[list[str], Array]:
    with TextIOWrapper(open_regular_file(path), encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    return header, np.array(rows, dtype=float).reshape(len(rows), len(header))
