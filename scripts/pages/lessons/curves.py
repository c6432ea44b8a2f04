"""Curves of a lesson's figure: computed from the runs of its sweep, and saved as CSV."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean

import numpy as np

from losslab.analysis.compare import Group, Run
from losslab.analysis.compare.curves import read_histories
from losslab.analysis.dynamics.record import Numbers, Record
from losslab.io.tables import write_csv

Row = tuple[float, float, float, float]
"""x, mean, lower end and upper end of the band."""


@dataclass(frozen=True)
class CurvesSpec:
    """What the curves of a figure show; there is one curve for each group of runs."""

    x_label: str
    y_label: str
    rows: Callable[[Group], list[Row]]
    band: str
    """Text that says what the band around a curve shows."""
    within: str = ""
    """Override of the groups to show, such as "noise.rate=0.4"; "" for all groups."""
    log: bool = False
    diagonal: bool = False
    """Whether to draw the diagonal of perfect calibration."""
    markers: bool = False
    """Whether to mark each point."""


@dataclass(frozen=True)
class Point:
    """One point of one curve."""

    series: str
    x: float
    mean: float
    low: float
    high: float


def collect_points(spec: CurvesSpec, groups: Iterable[Group]) -> list[Point]:
    """Compute the curves of the groups that the figure shows."""
    shown = [group for group in groups if not spec.within or spec.within in group.name]
    return [
        Point(" ".join(part for part in group.name if part != spec.within), *row)
        for group in shown
        for row in spec.rows(group)
    ]


def write_points(points: Sequence[Point], file: Path) -> None:
    """Write the points as CSV."""
    rows = ((each.series, *(f"{value:.6g}" for value in (each.x, each.mean, each.low, each.high))) for each in points)
    write_csv(file, ["series", "x", "mean", "low", "high"], rows)


def read_points(file: Path) -> list[Point]:
    """Read the CSV file that `write_points` wrote."""
    with file.open(newline="") as lines:
        _, *rows = csv.reader(lines)
    return [Point(series, *map(float, numbers)) for series, *numbers in rows]


def history_curve(column: str) -> Callable[[Group], list[Row]]:
    """Return a function that reads a column of history.csv over epochs: mean, minimum and maximum over the seeds."""

    def rows(group: Group) -> list[Row]:
        curve = read_histories([group], [column]).curve(group, column)
        return [] if curve is None else list(zip(curve.epochs, curve.mean, curve.low, curve.high, strict=True))

    return rows


def gradient_on_wrong(group: Group) -> list[Row]:
    """Compute the median of |∂ℓ/∂z_y| over the misclassified tracked examples, for each epoch.

    Rows contain the mean, minimum and maximum over the seeds. Epochs in which a seed has no misclassified examples are
    left out.
    """
    seeds = [_median_gradients(run) for run in group.runs]
    epochs = sorted(set.intersection(*map(set, seeds)))
    return [_over_seeds(epoch, [seed[epoch] for seed in seeds]) for epoch in epochs]


def _over_seeds(x: float, values: Sequence[float]) -> Row:
    return x, fmean(values), min(values), max(values)


def _median_gradients(run: Run) -> dict[int, float]:
    import torch  # noqa: PLC0415 -- slow to import
    from hydra.utils import instantiate  # noqa: PLC0415

    record = Record.load(run.folder.dynamics)
    loss = instantiate(run.config["loss"]).per_example
    target = torch.from_numpy(record.target)
    medians = {}
    for epoch, outputs, wrong in zip(record.epoch.tolist(), record.outputs, record.mispredicted(), strict=True):
        if wrong.any():
            z = torch.from_numpy(outputs[wrong]).double().requires_grad_()
            y = target[wrong]
            (gradient,) = torch.autograd.grad(loss(z, y).sum(), z)
            medians[epoch] = float(gradient.gather(1, y[:, None]).abs().median())
    return medians


def recall_by_class(group: Group) -> list[Row]:
    """Compute the recall of each class on the test set: mean, minimum and maximum over the seeds."""
    recalls = []
    for _, predicted, truth in map(_predictions, group.runs):
        recalls.append([float((predicted[truth == c] == c).mean()) for c in range(int(truth.max()) + 1)])
    return [_over_seeds(c, values) for c, values in enumerate(zip(*recalls, strict=True))]


def reliability_curve(group: Group) -> list[Row]:
    """Compute the accuracy over the mean confidence, in ten bins of the confidence, with its 95 % interval.

    The predictions of all seeds are pooled; bins with fewer than 20 predictions are left out.
    """
    parts = [_predictions(run) for run in group.runs]
    confidence = np.concatenate([part[0] for part in parts])
    right = np.concatenate([part[1] == part[2] for part in parts])
    rows: list[Row] = []
    for tenth in range(10):
        inside = np.minimum((confidence * 10).astype(int), 9) == tenth
        count = int(inside.sum())
        if count >= 20:
            share = float(right[inside].mean())
            half = 1.96 * sqrt(share * (1 - share) / count)
            rows.append((float(confidence[inside].mean()), share, max(0.0, share - half), min(1.0, share + half)))
    return rows


def _predictions(run: Run) -> tuple[Numbers, Numbers, Numbers]:
    """Return confidence, predicted class and true class of the test examples, with the weights of the last epoch."""
    from losslab.analysis.evaluate.evaluation import evaluate  # noqa: PLC0415 -- imports torch
    from losslab.training.reopen import EvaluationRequest  # noqa: PLC0415

    found = evaluate(EvaluationRequest(run.folder.path, "test", "last")).predictions
    return found.confidence, found.prediction, found.truth
