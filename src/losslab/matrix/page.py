"""The matrix as a table, a figure and a file."""

from pathlib import Path

from losslab import durable
from losslab.comparison import csvs
from losslab.comparison.page import png
from losslab.comparison.tables import markdown, named
from losslab.matrix.figure import draw
from losslab.matrix.measuring import Cell, Matrix

TITLE = "Trained with, measured by"


def rows(matrix: Matrix, own: str = "**{}**") -> list[tuple[str, ...]]:
    """A head, and a row for each group, or where there are many losses for each loss.

    Args:
        matrix: to be shown.
        own: how the value of a model under the loss it was trained with is marked.
    """
    _, names = named(matrix.groups)
    body = [[_said(matrix.cells[one, loss], own) for loss in matrix.losses] for one in matrix.groups]
    if matrix.upright:
        lines = zip(matrix.losses, zip(*body, strict=True), strict=True)
        return [("measured by", *names), *((loss, *cells) for loss, cells in lines)]
    return [("trained with", *matrix.losses), *((name, *cells) for name, cells in zip(names, body, strict=True))]


def key(matrix: Matrix, own: str) -> str:
    """One line that says how to read the table where the page is not at hand."""
    line = "line" if matrix.upright else "column"
    translated = "; *: the outputs were translated" if matrix.translated else ""
    mark = own.format("x")
    return (
        f"mean loss on the test set, to be compared within a {line}; {mark}: the loss it was trained with{translated}"
    )


def section(matrix: Matrix) -> str:
    """What stands below its title in comparison.md."""
    table = markdown(rows(matrix), words=(0,))
    empty = [f"- {_some(places)}: {reason}" for reason, places in matrix.reasons.items()]
    figure = "![Trained with, measured by](matrix.png)"
    return "\n\n".join([_how(matrix), figure, table, *(["Not measured:", "\n".join(empty)] if empty else [])])


def _how(matrix: Matrix) -> str:
    """How to read the figure and the table."""
    models, losses = ("column", "line") if matrix.upright else ("line", "column")
    translated = (
        "A loss measures the outputs as they are where it reads them as the loss of the training did; where it reads "
        "them otherwise (marked *), the probabilities or values that they mean are taken back to outputs that mean "
        "the same to the measuring loss: their logarithms for a softmax, log-odds for a sigmoid, themselves for a loss "
        "of values. So a loss that looks at more than what outputs mean, such as the size of logits, measures the "
        "translation and not the model."
    )
    return (
        f"Each {models} is a kind of model, each {losses} the mean loss on the test set under a loss, averaged over "
        f"seeds (bold: the loss it was trained with). Numbers of one {losses} can be compared; those of one {models} "
        "cannot, because every loss has its own unit. "
    ) + (translated if matrix.translated else "Every loss measures the outputs as they are.")


def write(matrix: Matrix, folder: Path) -> None:
    """Write matrix.png and matrix.csv, a row for each cell."""
    durable.put(folder / "matrix.png", png(draw(matrix)))
    rows = ((one.label, loss, cell.value, cell.how) for (one, loss), cell in matrix.cells.items())
    csvs.put(folder / "matrix.csv", ["trained_with", "measured_by", "value", "how"], rows)


def _said(cell: Cell, own: str) -> str:
    if cell.value is None:
        return "–"
    said = f"{cell.value:.3g}"
    return own.format(said) if cell.how == "own" else said + "*" * (cell.how == "translated")


def _some(places: list[str]) -> str:
    return ", ".join(places) if len(places) <= 3 else f"{', '.join(places[:2])} and {len(places) - 2} more"
