"""The matrix as a heatmap, as a table, as a section of comparison.md and as matrix.csv."""

from itertools import product
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

from losslab.analysis.compare.grouping import Group, shorten
from losslab.analysis.compare.tables import NO_VALUE, group_labels
from losslab.analysis.loss_matrix.measure import Cell, Matrix
from losslab.io.figures import new_figure, save_png
from losslab.io.tables import markdown_table, write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Trained with, measured by"


def write(matrix: Matrix, folder: Path) -> None:
    """Write matrix.png, and matrix.csv with a row for each cell."""
    save_png(draw(matrix), folder / "matrix.png")
    rows = ((group.label, loss, cell.value, cell.how) for (group, loss), cell in matrix.cells.items())
    write_csv(folder / "matrix.csv", ["trained_with", "measured_by", "value", "how"], rows)


def section(matrix: Matrix) -> str:
    """Section of comparison.md, without its heading."""
    parts = [_explanation(matrix), f"![{TITLE}](matrix.png)", markdown_table(table(matrix))]
    if matrix.reasons:
        parts += ["Not measured:", "\n".join(f"- {shorten(cells)}: {why}" for why, cells in matrix.reasons.items())]
    return "\n\n".join(parts)


def table(matrix: Matrix, own: str = "**{}**") -> list[tuple[str, ...]]:
    """Table with a head and a row for each group, or for each loss if there are many.

    Args:
        matrix: to show.
        own: format of the value of a model under the loss it was trained with.
    """
    _, names = group_labels(matrix.groups)
    body = [[_format(matrix.cells[group, loss], own) for loss in matrix.losses] for group in matrix.groups]
    if matrix.losses_in_rows:
        rows = zip(matrix.losses, zip(*body, strict=True), strict=True)
        return [("measured by", *names), *((loss, *cells) for loss, cells in rows)]
    return [("trained with", *matrix.losses), *((name, *cells) for name, cells in zip(names, body, strict=True))]


def legend(matrix: Matrix, own: str) -> str:
    """One line below the table in a terminal."""
    return (
        f"mean loss on the test set, to be compared within a {'row' if matrix.losses_in_rows else 'column'}; "
        f"{own.format('x')}: the loss it was trained with{'; *: the outputs were translated' * matrix.translated}"
    )


def _explanation(matrix: Matrix) -> str:
    models, losses = ("column", "row") if matrix.losses_in_rows else ("row", "column")
    translated = (
        "Outputs are measured as they are by a loss that reads them as the training loss did. For other losses "
        "(marked *), the probabilities or values that the outputs mean are turned into outputs that mean the same to "
        "the measuring loss: their logarithms for a softmax, log-odds for a sigmoid, themselves for a loss of values. "
        "So a loss that depends on more than this meaning, such as the size of logits, measures the translation and "
        "not the model."
    )
    return (
        f"Each {models} is a kind of model, each {losses} the mean loss on the test set under a loss, averaged over "
        f"seeds (bold: the loss it was trained with). Numbers of one {losses} can be compared; those of one {models} "
        "cannot, because every loss has its own unit. "
    ) + (translated if matrix.translated else "Every loss measures the outputs as they are.")


def draw(matrix: Matrix) -> "Figure":
    """Draw a heatmap. Colours compare the models under one loss, because losses share no unit."""
    _, names = group_labels(matrix.groups)
    grid = [[(group, loss) for loss in matrix.losses] for group in matrix.groups]
    rows, columns = names, matrix.losses
    sides = ("trained with", "mean loss on the test set, measured by")
    if matrix.losses_in_rows:
        grid = [[*line] for line in zip(*grid, strict=True)]
        rows, columns, sides = [*matrix.losses], tuple(names), sides[::-1]
    row_height = 0.24 if matrix.losses_in_rows else 0.36
    figure = new_figure(max(6.4, 2.6 + 0.8 * len(columns)), 2.2 + row_height * len(rows), dpi=160)
    figure.suptitle(_finding(matrix), fontsize="medium", fontweight="bold")
    axes = figure.subplots()
    shades = [[_shade(matrix, *key) for key in line] for line in grid]
    image = axes.imshow(shades, cmap="cividis_r", vmin=0, vmax=1, aspect="auto")
    for row, column in product(range(len(rows)), range(len(columns))):
        cell, shade = matrix.cells[grid[row][column]], shades[row][column]
        axes.text(
            column, row, _format(cell), ha="center", va="center", fontsize="x-small",
            weight="bold" if cell.how == "own" else "normal", color="white" if shade > 0.55 else "black",
        )  # fmt: skip
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="left", rotation_mode="anchor", fontsize="small")
    axes.set_yticks(range(len(rows)), rows, fontsize="small")
    axes.set_ylabel(sides[0], fontsize="small")
    axes.set_title(sides[1], fontsize="small", loc="left")
    axes.set_xlabel(f"bold: its own loss{'; *: translated' * matrix.translated}", fontsize="small")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 1], fraction=0.05, pad=0.02)
    bar.ax.set_yticklabels(["lowest", "highest"], fontsize="small")
    bar.ax.set_ylabel("under one loss", fontsize="small")
    return figure


def _finding(matrix: Matrix) -> str:
    if len(matrix.groups) == 1:
        return f"Trained with {group_labels(matrix.groups)[1][0]}"
    own = [key for key, cell in matrix.cells.items() if cell.how == "own"]
    lowest = sum(_shade(matrix, *key) == 0 for key in own)
    are = "is" if lowest == 1 else "are"
    return f"Of {len(own)} losses {lowest} {are} lowest for the model that was trained with it"


def _shade(matrix: Matrix, group: Group, loss: str) -> float:
    """0 for the lowest value under a loss, 1 for the highest; NaN if there is no value."""
    value = matrix.cells[group, loss].value
    if value is None:
        return nan
    column = [cell.value for each in matrix.groups if (cell := matrix.cells[each, loss]).value is not None]
    low, high = min(column), max(column)
    return (value - low) / (high - low) if high > low else 0.0


def _format(cell: Cell, own: str = "{}") -> str:
    if cell.value is None:
        return NO_VALUE
    value = f"{cell.value:.3g}"
    return own.format(value) if cell.how == "own" else value + "*" * (cell.how == "translated")
