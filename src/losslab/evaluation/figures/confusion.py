"""What is taken for what."""

import numpy as np
from matplotlib.figure import Figure

from losslab.evaluation import measures
from losslab.evaluation.answers import Answers, Array
from losslab.evaluation.figures import panels, plural, short
from losslab.targets import Task

_WRITTEN = 25
"""Up to so many classes the cells hold their counts."""


def draw(answers: Answers) -> Figure:
    """The confusion matrix: counts as numbers, the share of the true class as colour."""
    matrix, named = measures.confusion(answers), measures.names(answers)
    if answers.facts.task is Task.MULTILABEL:
        figure = _picture(matrix, named, ["TN", "FP", "FN", "TP"], _labels_finding(matrix, named))
        figure.axes[0].set(xlabel="decision on the label", ylabel="label")
        return figure
    figure = _picture(matrix, named, named, _finding(matrix, named))
    figure.axes[0].set(xlabel="prediction", ylabel="truth")
    return figure


def _picture(matrix: Array, rows: list[str], columns: list[str], title: str) -> Figure:
    side = float(np.clip(0.5 * len(rows) + 1.9, 4.2, 14))
    width = side + 1.0 if len(rows) == len(columns) else max(5.5, 0.8 * len(columns) + 2)
    figure, (axes,) = panels(width, side)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for names, axis in ((columns, axes.xaxis), (rows, axes.yaxis)):
        every = max(1, len(names) // 50)
        axis.set_ticks(range(0, len(names), every), [short(name) for name in names[::every]])
    longest = max(len(short(name)) for name in columns)
    axes.tick_params(axis="x", rotation=90 if len(columns) > 4 and longest > 3 else 0)
    if len(rows) <= _WRITTEN:
        size = 9 if matrix.max() < 1000 or len(rows) <= 12 else 7
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if share[row, column] < 0.55 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=size)
    bar = figure.colorbar(image, ax=axes, fraction=0.05)
    bar.set_label("share of the row")
    axes.set_title(title, fontsize=11, wrap=True)
    return figure


def _finding(matrix: Array, named: list[str]) -> str:
    right, count = int(np.trace(matrix)), int(matrix.sum())
    wrong = matrix - np.diag(np.diag(matrix))
    title = f"{right:,} of {plural(count, 'example')} right ({right / count:.1%})"
    if not wrong.any():
        return title
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    most = f"{short(named[row], 20)} taken for {short(named[column], 20)}"
    return f"{title};\nmost often wrong: {most} ({wrong[row, column]:,} of {matrix[row].sum():,})"


def _labels_finding(matrix: Array, named: list[str]) -> str:
    wrong = matrix[:, 1] + matrix[:, 2]
    decisions = int(matrix.sum())
    worst = int(wrong.argmax())
    title = f"{1 - wrong.sum() / decisions:.1%} of {decisions:,} decisions right"
    return f"{title};\nmost often wrong: {short(named[worst], 20)} ({wrong[worst]:,} times)" if wrong.any() else title
