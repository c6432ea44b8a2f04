"""The matrix as a heatmap.

The matrix as a table, a figure and a file.
"""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.tables import group_labels
from losslab.analysis.loss_matrix.measuring import Cell, Matrix
from losslab.io.figures import save_png
from losslab.io.tables import markdown_table, write_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Place = tuple[Group, str]


def draw(matrix: Matrix) -> "Figure":
    """Colours say, loss by loss, how near to the lowest a model comes: losses share no unit."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    _, names = group_labels(matrix.groups)
    across = not matrix.upright
    places = [[(one, loss) for loss in matrix.losses] for one in matrix.groups]
    down, beside = (names, matrix.losses) if across else (matrix.losses, names)
    grid = places if across else [[*line] for line in zip(*places, strict=True)]
    size = (max(6.4, 2.6 + 0.8 * len(beside)), 2.2 + (0.36 if across else 0.24) * len(down))
    figure = Figure(figsize=size, dpi=160, layout="constrained")
    figure.suptitle(_finding(matrix), fontsize="medium", fontweight="bold")
    axes = figure.subplots()
    shades = [[_shade(matrix, *place) for place in line] for line in grid]
    image = axes.imshow(shades, cmap="cividis_r", vmin=0, vmax=1, aspect="auto")
    _write(axes, matrix, grid)
    axes.set_xticks(range(len(beside)), beside, rotation=30, ha="left", rotation_mode="anchor", fontsize="small")
    axes.set_yticks(range(len(down)), down, fontsize="small")
    sides = ("trained with", "mean loss on the test set, measured by")
    axes.set_ylabel(sides[0 if across else 1], fontsize="small")
    axes.set_title(sides[1 if across else 0], fontsize="small", loc="left")
    axes.set_xlabel(f"bold: its own loss{'; *: translated' * matrix.translated}", fontsize="small")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 1], fraction=0.05, pad=0.02)
    bar.ax.set_yticklabels(["lowest", "highest"], fontsize="small")
    bar.ax.set_ylabel("under one loss", fontsize="small")
    return figure


def _write(axes: "Axes", matrix: Matrix, grid: list[list[Place]]) -> None:
    """The number of each cell."""
    for line, places in enumerate(grid):
        for column, place in enumerate(places):
            cell, tone = matrix.cells[place], _shade(matrix, *place)
            said = "–" if cell.value is None else f"{cell.value:.3g}{'*' * (cell.how == 'translated')}"
            axes.text(
                column, line, said, ha="center", va="center", fontsize="x-small",
                weight="bold" if cell.how == "own" else "normal",
                color="white" if isfinite(tone) and tone > 0.55 else "black",
            )  # fmt: skip


def _finding(matrix: Matrix) -> str:
    own = [place for place, cell in matrix.cells.items() if cell.how == "own"]
    if len(matrix.groups) == 1:
        return f"Trained with {group_labels(matrix.groups)[1][0]}"
    first = sum(_shade(matrix, *place) == 0 for place in own)
    verb = "is" if first == 1 else "are"
    return f"Of {len(own)} losses {first} {verb} lowest for the model that was trained with it"


def _shade(matrix: Matrix, group: Group, loss: str) -> float:
    """0 for the lowest under a loss, 1 for the highest; NaN where there is no number."""
    known = [cell.value for one in matrix.groups if (cell := matrix.cells[one, loss]).value is not None]
    low, high, own = min(known), max(known), matrix.cells[group, loss].value
    if own is None:
        return float("nan")
    return (own - low) / (high - low) if high > low else 0.0


TITLE = "Trained with, measured by"


def rows(matrix: Matrix, own: str = "**{}**") -> list[tuple[str, ...]]:
    """A head, and a row for each group, or where there are many losses for each loss.

    Args:
        matrix: to be shown.
        own: how the value of a model under the loss it was trained with is marked.
    """
    _, names = group_labels(matrix.groups)
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
    table = markdown_table(rows(matrix))
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
    save_png(draw(matrix), folder / "matrix.png")
    rows = ((one.label, loss, cell.value, cell.how) for (one, loss), cell in matrix.cells.items())
    write_csv(folder / "matrix.csv", ["trained_with", "measured_by", "value", "how"], rows)


def _said(cell: Cell, own: str) -> str:
    if cell.value is None:
        return "–"
    said = f"{cell.value:.3g}"
    return own.format(said) if cell.how == "own" else said + "*" * (cell.how == "translated")


def _some(places: list[str]) -> str:
    return ", ".join(places) if len(places) <= 3 else f"{', '.join(places[:2])} and {len(places) - 2} more"
