"""Predicted values against true ones, and what is left."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losslab.analysis.evaluate.figures import panels, plural
from losslab.analysis.evaluate.predictions import Answers, Array
from losslab.io.figures import COLOURS

_COLUMNS = 6
"""Of more values an example, the first so many are drawn."""
_BARS = 500
"""Up to so many examples predicted deviations are drawn as bars."""


def draw_predictions(answers: Answers) -> Figure:
    """Prediction against truth, a panel for each value; bars of one predicted standard deviation."""
    count = min(answers.truth.shape[1], _COLUMNS)
    figure, panel = panels(5.4 * min(count, 3), 5.2 * -(-count // 3), rows=-(-count // 3), columns=min(count, 3))
    for column, axes in zip(range(count), panel, strict=False):
        truth, prediction = answers.truth[:, column], answers.prediction[:, column]
        ends = [min(truth.min(), prediction.min()), max(truth.max(), prediction.max())]
        axes.plot(ends, ends, color="0.4", linestyle="--", linewidth=1, label="prediction = truth")
        if answers.deviation is not None and len(answers) <= _BARS:
            bars = answers.deviation[:, column]
            style: dict[str, Any] = {"fmt": "none", "ecolor": COLOURS[5], "elinewidth": 0.7, "zorder": 0}
            axes.errorbar(truth, prediction, yerr=bars, label="± predicted deviation", **style)
        _points(axes, truth, prediction, answers)
        axes.set(xlabel=f"truth{_unit(column, count)}", ylabel=f"prediction{_unit(column, count)}")
        axes.set_title(_finding(truth, prediction), fontsize=11)
        axes.legend(fontsize=9)
        axes.grid(alpha=0.3)
    _blank(panel[count:])
    return figure


def draw_residuals(answers: Answers) -> Figure:
    """Residual against prediction beside the residuals' histogram, a row for each value."""
    count = min(answers.truth.shape[1], _COLUMNS)
    figure, panel = panels(8.4, 4.2 * count, rows=count, columns=2, gridspec_kw={"width_ratios": [3, 1]}, sharey="row")
    for column in range(count):
        left, right = panel[2 * column : 2 * column + 2]
        prediction = answers.prediction[:, column]
        residual = prediction - answers.truth[:, column]
        left.axhline(0, color="0.4", linestyle="--", linewidth=1)
        _points(left, prediction, residual, answers)
        left.set(xlabel=f"prediction{_unit(column, count)}", ylabel="residual (prediction − truth)")
        spread = f"standard deviation {residual.std():.4g}"
        left.set_title(
            f"Residuals of {plural(len(residual), 'example')}: mean {residual.mean():.4g}, {spread}", fontsize=11
        )
        if answers.mislabelled.any():
            left.legend(fontsize=9)
        if len(np.unique(residual)) > 1:
            right.hist(residual, bins=min(40, max(10, len(residual) // 5)), orientation="horizontal", color=COLOURS[0])
        right.set_xlabel("examples")
        for axes in (left, right):
            axes.grid(alpha=0.3)
    return figure


def _points(axes: Axes, x: Array, y: Array, answers: Answers) -> None:
    """Examples as points; those whose target was not the truth as crosses."""
    wrong = answers.mislabelled
    alpha = 0.7 if len(x) <= 1000 else 0.25
    axes.plot(x[~wrong], y[~wrong], "o", markersize=3.5, color=COLOURS[0], alpha=alpha)
    if wrong.any():
        label = f"target is not the truth ({wrong.sum():,})"
        axes.plot(x[wrong], y[wrong], "x", markersize=5, color=COLOURS[1], label=label)


def _unit(column: int, count: int) -> str:
    return f" {column}" if count > 1 else " (units of the target)"


def _finding(truth: Array, prediction: Array) -> str:
    error = prediction - truth
    variance = truth.var()
    explained = f"R² {1 - (error**2).mean() / variance:.4f}, " if variance > 0 and len(truth) > 1 else ""
    return f"{explained}MSE {(error**2).mean():.4g} over {plural(len(truth), 'example')}"


def _blank(panel: list[Axes]) -> None:
    for axes in panel:
        axes.set_axis_off()
