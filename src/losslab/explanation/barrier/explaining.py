"""Solutions of one network: the loss along the straight lines between them."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from losslab.errors import LabError
from losslab.explanation.landscape import explaining as landscape
from losslab.explanation.sight import USUAL, Sight
from losslab.runs import RunFolder


def applies(config: dict[str, Any]) -> bool:
    """Whether a run trained a network of layers: between linear models there is nothing to cross."""
    return landscape.applies(config)


def explain(runs: Sequence[RunFolder], output: Path | None, sight: Sight = USUAL) -> list[Path]:
    """Draw barrier.png, with its numbers in barrier.csv → the path of the figure.

    Each pair of solutions is scored under the loss of either, and under one metric. BatchNorm's statistics are taken
    anew everywhere on the line, its ends included, so that what is seen is the weights.

    Args:
        runs: two or more of one network and the same data. The examples are those of the first.
        output: a folder for the figure.
        sight: what they are looked at with.

    Raises:
        LabError: there is one run only, or they are of different networks or data.
    """
    from losslab.explanation import figure  # noqa: PLC0415
    from losslab.explanation.barrier import drawing, line  # noqa: PLC0415
    from losslab.explanation.landscape.cost import counted  # noqa: PLC0415
    from losslab.explanation.landscape.passes import Passes  # noqa: PLC0415
    from losslab.explanation.solution import batches, solutions  # noqa: PLC0415

    if len(runs) < 2:
        message = "a line needs two ends: name two or more runs of one network"
        raise LabError(message)
    folder = figure.place(runs, output)
    found = solutions(runs, sight.ckpt)
    line.check(found)
    seen = batches(found[0], sight.split, sight.examples, sight.seed)
    passes = {each.label: Passes(each, seen, recompute=True) for each in found}
    wanted = [
        (first, second, under)
        for first, second in combinations(found, 2)
        for under in ((first,) if first.config["loss"] == second.config["loss"] else (first, second))
    ]
    with counted("barrier", [(passes[under.label], sight.points) for *_, under in wanted]) as done:
        lines = [line.between(*three, passes[three[2].label], sight.points, done) for three in wanted]
    first = passes[found[0].label]
    note = f"{first.examples:,} {sight.words} examples, unaugmented"
    if landscape.drawn_apart(runs):
        note += f", with the noise and the imbalance that {found[0].label} learnt from"
    if first.normalised:
        note += "; BatchNorm's statistics are taken anew from them at every point"
    rows = [row for each in lines for row in each.rows(found)]
    figure.table(folder / "barrier.csv", ["first", "second", "loss_of", "share", "loss", "metric"], rows)
    return [figure.keep(drawing.draw(lines, note), "barrier", runs, output, drawing.findings(lines))]
