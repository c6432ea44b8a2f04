"""Heat maps of the atlas: the difference of each loss from the usual choice in each situation, with verdicts."""

from collections.abc import Iterable
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from losslab.io.figures import new_figure, save_png
from losslab.study.figures import add_title
from pages.atlas.studies import Task
from pages.atlas.table import BETTER, MARKS, Atlas
from pages.study import StudyRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LIMITS = {"classification": 5.0, "regression": 2.0}
"""The gain at which the colours end: points, or log2 of a factor."""


def write_figures(tasks: Iterable[Task], folder: Path) -> None:
    """Write TASK.png for each task that has results."""
    for task in tasks:
        atlas = Atlas.read(task, folder)
        if atlas.rows:
            save_png(draw(atlas), folder / f"{task.name}.png")


def draw(atlas: Atlas) -> "Figure":
    """Draw the heat map of a task: losses in rows, situations in columns."""
    labels, limit = atlas.labels, _LIMITS[atlas.task.name]
    by_ratio = next(iter(next(iter(atlas.rows.values())).values())).scale.by_ratio
    figure = new_figure(2.6 + 1.35 * len(atlas.situations), 1.9 + 0.27 * len(labels), dpi=150)
    axes = figure.subplots()
    gains = [[atlas.gain(each.name, label) for each in atlas.situations] for label in labels]
    values = np.array([[nan if gain is None else gain for gain in row] for row in gains])
    image = axes.imshow(np.clip(values, -limit, limit), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for y, label in enumerate(labels):
        for x, situation in enumerate(atlas.situations):
            _write_cell(axes, x, y, atlas.row(situation.name, label), abs(values[y, x]) > 0.6 * limit)
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    axes.set_xticks(range(len(atlas.situations)), [each.title for each in atlas.situations], fontsize="small")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    reference = atlas.task.reference
    unit = f"test error ÷ that of {reference}" if by_ratio else f"points more than {reference} on the test data"
    axes.set_xlabel(f"{unit}\n▲ better   ▼ worse   = equivalent   ? undecided", fontsize="small", labelpad=8)
    counts = ", ".join(str(len(atlas.with_verdict(each.name, BETTER))) for each in atlas.situations)
    others = len(atlas.task.losses) - 1
    add_title(figure, f"Better than {reference}, from left to right: {counts} of {others} losses")
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, aspect=40)
    ticks = [-limit, -limit / 2, 0, limit / 2, limit]
    texts = [f"× {2**-tick:.2g}" if by_ratio else f"{tick:+g}" for tick in ticks]
    texts[0], texts[-1] = f"{texts[0]} or worse", f"{texts[-1]} or better"
    bar.set_ticks(ticks, labels=texts, fontsize="small")
    bar.outline.set_visible(False)
    return figure


def _write_cell(axes: "Axes", x: int, y: int, row: StudyRow | None, is_dark: bool) -> None:
    if row is None or row.verdict == "same runs":
        return
    text = ""
    if row.difference is not None:
        text = f"× {row.difference:.3g}" if row.scale.by_ratio else f"{100 * row.difference:+.1f}"
    mark = MARKS.get(row.verdict, row.verdict)
    axes.text(
        x, y, f"{text} {mark}".strip(), ha="center", va="center", fontsize="small",
        color="white" if is_dark else "black",
    )  # fmt: skip
