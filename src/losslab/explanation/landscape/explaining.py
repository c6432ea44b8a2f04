"""Networks: the loss around a solution, and between solutions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losslab.runs import RunFolder

OPTIONS = ("points", "examples", "seed", "split", "ckpt")


def applies(config: dict[str, Any]) -> bool:
    """Whether a run trained a network of layers; what a linear model does, `linear` says exactly."""
    return bool(config["model"]["_target_"] != "losslab.networks.linear.linear")


def explain(
    runs: Sequence[RunFolder],
    output: Path | None,
    *,
    points: int = 21,
    examples: int = 1000,
    seed: int = 0,
    split: str = "train",
    ckpt: str = "best",
) -> list[Path]:
    """Draw landscape.png, with its numbers in landscape.csv → the path of the figure.

    Args:
        runs: each is surveyed under its own loss, and under one metric.
        output: a folder; None for the one run's own figures.
        points: along each side of the plane, an odd number.
        examples: so many, drawn from the split, unaugmented.
        seed: of the examples and of the directions.
        split: "train", "val" or "test".
        ckpt: "best" or "last".

    Raises:
        LabError: a run is not there, or its weights are not finite.
    """
    from losslab.explanation import figure  # noqa: PLC0415
    from losslab.explanation.landscape import drawing  # noqa: PLC0415
    from losslab.explanation.landscape.cost import counted  # noqa: PLC0415
    from losslab.explanation.landscape.passes import Passes  # noqa: PLC0415
    from losslab.explanation.landscape.plane import passes_needed, survey  # noqa: PLC0415
    from losslab.explanation.solution import batches, solutions  # noqa: PLC0415

    folder = figure.place(runs, output)
    points += 1 - points % 2  # the solution itself is one of them
    found = solutions(runs, ckpt)
    passes = [Passes(solution, batches(solution, split, examples, seed)) for solution in found]
    with counted("landscape", [(each, passes_needed(points)) for each in passes]) as done:
        seen = [survey(solution, each, points, seed, done) for solution, each in zip(found, passes, strict=True)]
    note = f"{passes[0].examples:,} {words(split)} examples, unaugmented; directions of seed {seed}, filters normalised"
    if any(each.normalised for each in passes):
        note += "; BatchNorm keeps the statistics of training"
    rows = [row for number, landscape in enumerate(seen) for row in landscape.rows(number)]
    figure.table(folder / "landscape.csv", ["run", "x", "y", "loss", "metric"], rows)
    said = "; ".join(drawing.finding(landscape) for landscape in seen)
    return [figure.keep(drawing.draw(seen, note), "landscape", runs, output, said)]


def words(split: str) -> str:
    """A split's name in a sentence."""
    return {"train": "training", "val": "validation", "test": "test"}[split]
