"""What the left half of a lesson's figure shows: points of curves, taken from the runs of a sweep."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from math import sqrt
from pathlib import Path
from statistics import fmean

import numpy as np

from losslab.analysis.compare import Group, Run
from losslab.analysis.compare.curves import read_histories
from losslab.analysis.dynamics import metrics
from losslab.analysis.dynamics.record import Numbers, Record

Row = tuple[float, float, float, float]
"""Place, mean, and the ends of what stands around it."""


@dataclass(frozen=True)
class Sight:
    """A curve for each group."""

    x: str
    y: str
    rows: Callable[[Group], list[Row]]
    band: str
    """What stands around the curve."""
    within: str = ""
    """Of which groups: "noise.rate=0.4"; "" for all."""
    log: bool = False
    diagonal: bool = False
    """Whether honesty is a diagonal."""
    points: bool = False
    """Whether places are few, and each is marked."""


@dataclass(frozen=True)
class Point:
    """One place of one curve."""

    series: str
    x: float
    mean: float
    low: float
    high: float


def gather(sight: Sight, groups: Iterable[Group]) -> list[Point]:
    """The curves of those groups that are shown."""
    shown = [one for one in groups if not sight.within or sight.within in one.name]
    return [Point(short(one.name, sight.within), *row) for one in shown for row in sight.rows(one)]


def short(name: Iterable[str], within: str = "") -> str:
    """What a group is called among those that share a circumstance."""
    return " ".join(part for part in name if part != within)


def history(column: str) -> Callable[[Group], list[Row]]:
    """A column of history.csv over epochs: mean over seeds, lowest and highest."""

    def rows(group: Group) -> list[Row]:
        curve = read_histories([group], [column]).curve(group, column)
        return [] if curve is None else list(zip(curve.epochs, curve.mean, curve.low, curve.high, strict=True))

    return rows


def pull_on_the_wrong(group: Group) -> list[Row]:
    """Over epochs, the median of |∂ℓ/∂z_y| of the watched examples that are wrong: mean over seeds, lowest, highest.

    Only as long as each seed has examples that are wrong.
    """
    pulls = [_pulls(run) for run in group.runs]
    shared = sorted(set.intersection(*(set(own) for own in pulls)))
    found = [[own[epoch] for own in pulls] for epoch in shared]
    return [(epoch, fmean(each), min(each), max(each)) for epoch, each in zip(shared, found, strict=True)]


def _pulls(run: Run) -> dict[int, float]:
    import torch  # noqa: PLC0415 -- not before --help
    from hydra.utils import instantiate  # noqa: PLC0415

    record = Record.load(run.folder.dynamics)
    loss = instantiate(run.config["loss"]).per_example
    target = torch.from_numpy(record.target)
    found = {}
    for epoch, outputs, wrong in zip(record.epoch.tolist(), record.outputs, metrics.mispredicted(record), strict=True):
        if wrong.any():
            z = torch.from_numpy(outputs[wrong]).double().requires_grad_()
            y = target[wrong]
            (slope,) = torch.autograd.grad(loss(z, y).sum(), z)
            found[epoch] = float(slope.gather(1, y[:, None]).abs().median())
    return found


def recall_by_class(group: Group) -> list[Row]:
    """Over the classes, the share of a class's test examples that is found: mean over seeds, lowest and highest."""
    found = []
    for _, guess, truth in map(_answers, group.runs):
        found.append([float((guess[truth == label] == label).mean()) for label in range(int(truth.max()) + 1)])
    return [(place, fmean(each), min(each), max(each)) for place, each in enumerate(zip(*found, strict=True))]


def reliability(group: Group) -> list[Row]:
    """Over mean confidence, the share of right answers and its 95 % interval, in tenths; all seeds' test examples."""
    parts = [_answers(run) for run in group.runs]
    confidence = np.concatenate([part[0] for part in parts])
    right = np.concatenate([part[1] == part[2] for part in parts])
    rows: list[Row] = []
    for place in range(10):
        inside = np.minimum((confidence * 10).astype(int), 9) == place
        count = int(inside.sum())
        if count >= 20:
            share = float(right[inside].mean())
            half = 1.96 * sqrt(share * (1 - share) / count)
            rows.append((float(confidence[inside].mean()), share, max(0.0, share - half), min(1.0, share + half)))
    return rows


def _answers(run: Run) -> tuple[Numbers, Numbers, Numbers]:
    """Confidence, guess and truth of the test examples, under the last epoch's weights."""
    from losslab.analysis.evaluate.evaluation import evaluate  # noqa: PLC0415 -- imports torch
    from losslab.training.reopen import EvaluationRequest  # noqa: PLC0415

    answers = evaluate(EvaluationRequest(run.folder.path, "test", "last")).predictions
    return answers.confidence, answers.prediction, answers.truth


def write(points: list[Point], file: Path) -> None:
    """Keep the points."""
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, [field.name for field in fields(Point)], lineterminator="\n")
        writer.writeheader()
        for point in points:
            numbers = {key: f"{value:.6g}" for key, value in asdict(point).items() if key != "series"}
            writer.writerow({"series": point.series} | numbers)


def read(file: Path) -> list[Point]:
    """The points that `write` kept."""
    with file.open(newline="") as lines:
        next(lines)
        return [Point(series, *map(float, numbers)) for series, *numbers in csv.reader(lines)]
