"""The matrix as a table, a figure and a file."""

import csv
from pathlib import Path

from losslab.comparison.tables import markdown, named
from losslab.matrix.figure import draw
from losslab.matrix.measuring import Cell, Matrix

TITLE = "Trained with, measured by"
_HOW = """\
Each line is a kind of model, each column the mean loss on the test set under a loss, averaged over seeds (bold: the \
loss it was trained with). Numbers of one column can be compared; those of a line cannot, because every loss has its \
own unit. A loss measures the outputs as they are where it reads them as the loss of the training did; where it reads \
them otherwise (marked *), the probabilities or values that they mean are taken back to outputs that mean the same to \
the measuring loss: their logarithms for a softmax, log-odds for a sigmoid, themselves for a loss of values. So a loss \
that looks at more than what outputs mean, such as the size of logits, measures the translation and not the model."""


def rows(matrix: Matrix) -> list[tuple[str, ...]]:
    """A head, and a row for each group."""
    _, names = named(matrix.groups)
    body = [
        (name, *(_said(matrix.cells[one, loss]) for loss in matrix.losses))
        for name, one in zip(names, matrix.groups, strict=True)
    ]
    return [("trained with", *matrix.losses), *body]


def section(matrix: Matrix) -> str:
    """What stands below its title in comparison.md."""
    table = markdown(rows(matrix), words=(0,))
    empty = [f"- {_some(places)}: {reason}" for reason, places in matrix.reasons.items()]
    figure = "![Trained with, measured by](matrix.png)"
    return "\n\n".join([_HOW, figure, table, *(["Not measured:", "\n".join(empty)] if empty else [])])


def write(matrix: Matrix, folder: Path) -> None:
    """Write matrix.png and matrix.csv, a row for each cell."""
    draw(matrix).savefig(folder / "matrix.png", metadata={"Software": None})
    with (folder / "matrix.csv").open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["trained_with", "measured_by", "value", "how"])
        writer.writerows([one.label, loss, cell.value, cell.how] for (one, loss), cell in matrix.cells.items())


def _said(cell: Cell) -> str:
    if cell.value is None:
        return "–"
    return f"**{cell.value:.3g}**" if cell.how == "own" else f"{cell.value:.3g}" + "*" * (cell.how == "translated")


def _some(places: list[str]) -> str:
    return ", ".join(places) if len(places) <= 3 else f"{', '.join(places[:2])} and {len(places) - 2} more"
