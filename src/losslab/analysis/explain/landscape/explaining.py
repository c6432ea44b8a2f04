"""Networks: the loss around a solution, and between solutions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losslab.analysis.explain.options import USUAL, Sight
from losslab.runs import RunFolder


def applies(config: dict[str, Any]) -> bool:
    """Whether a run trained a network of layers; what a linear model does, `linear` says exactly."""
    return bool(config["model"]["_target_"] != "losslab.models.linear.linear")


def explain(runs: Sequence[RunFolder], output: Path | None, sight: Sight = USUAL) -> list[Path]:
    """Draw landscape.png, with its numbers in landscape.csv → the path of the figure.

    Args:
        runs: each is surveyed under its own loss, and under one metric.
        output: a folder; None for the one run's own figures.
        sight: what they are looked at with; an even number of points becomes the next odd one.

    Raises:
        LabError: a run is not there, or its weights are not finite.
    """
    from losslab.analysis.explain import figures  # noqa: PLC0415
    from losslab.analysis.explain.landscape import drawing  # noqa: PLC0415
    from losslab.analysis.explain.landscape.forward_passes import (
        Passes,  # noqa: PLC0415
        counted,  # noqa: PLC0415
    )
    from losslab.analysis.explain.landscape.plane import passes_needed, survey  # noqa: PLC0415
    from losslab.analysis.explain.solution import batches, solutions  # noqa: PLC0415

    folder = figures.place(runs, output)
    points = sight.points + 1 - sight.points % 2  # the solution itself is one of them
    found = solutions(runs, sight.ckpt)
    passes = [Passes(solution, batches(solution, sight.split, sight.examples, sight.seed)) for solution in found]
    with counted("landscape", [(each, passes_needed(points)) for each in passes]) as done:
        seen = [survey(solution, each, points, sight.seed, done) for solution, each in zip(found, passes, strict=True)]
    note = f"{passes[0].examples:,} {sight.words} examples, unaugmented"
    if drawn_apart(runs):
        note += ", each run's own, with its own noise and imbalance"
    note += f"; directions of seed {sight.seed}, filters normalised"
    if any(each.normalised for each in passes):
        note += "; BatchNorm keeps the statistics of training"
    rows = [row for number, landscape in enumerate(seen) for row in landscape.rows(number)]
    figures.table(folder / "landscape.csv", ["run", "x", "y", "loss", "metric"], rows)
    said = [drawing.finding(landscape) for landscape in seen]
    return [figures.keep(drawing.draw(seen, note), "landscape", runs, output, said)]


def drawn_apart(runs: Sequence[RunFolder]) -> bool:
    """Whether what was made wrong with the training data is not the same in all runs."""
    return len({(run.read_faults() or {}).get("sha256") for run in runs}) > 1
