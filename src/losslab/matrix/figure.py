"""The matrix as a heatmap."""

from math import isfinite
from typing import TYPE_CHECKING

from losslab.comparison.grouping import Group
from losslab.comparison.tables import named
from losslab.matrix.measuring import Matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Place = tuple[Group, str]


def draw(matrix: Matrix) -> "Figure":
    """Colours say, loss by loss, how near to the lowest a model comes: losses share no unit."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    _, names = named(matrix.groups)
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
        return f"Trained with {named(matrix.groups)[1][0]}"
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
