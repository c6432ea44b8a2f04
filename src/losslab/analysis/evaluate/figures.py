"""Figures of an evaluation: layout, regression, and the images of highest loss. Titles state the result."""

from itertools import product
from textwrap import fill
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losslab.analysis.evaluate.predictions import Array, Predictions
from losslab.data.batch import Examples, Source
from losslab.io.figures import COLOURS, new_figure
from losslab.targets import Task

STYLES = [{"color": colour, "linestyle": style} for style, colour in product(("-", "--", ":"), COLOURS[:-1])]
"""Distinct line styles; black is left for averages."""
_MAX_COLUMNS = 6
"""Only the first of more predicted values per example are drawn."""
_MAX_BARS = 500
"""Predicted deviations are drawn as bars for up to this many examples."""
_IMAGES_PER_ROW = 5


def new_panels(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of this size in inches, and its axes row by row."""
    figure = new_figure(width, height, dpi=120)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def add_note(figure: Figure, note: str) -> Figure:
    """Add a note in small print: below, or above if a legend is below or the layout is fixed."""
    width, height = figure.get_size_inches()
    lines, style = fill(note, int(18 * width), break_on_hyphens=False), dict[str, Any](fontsize=7, color="0.35")
    if figure.get_layout_engine() is None:
        figure.text(0.5, 1 - 0.36 / height, lines, ha="center", va="top", **style)  # below the title
    elif figure.legends:
        figure.suptitle(lines, **style)
    else:
        figure.supxlabel(lines, **style)
    return figure


def shorten(name: str, length: int = 14) -> str:
    """A name cut to this length."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def plural(count: int, noun: str) -> str:
    """A count with its noun, such as "1 example" or "2,000 examples"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def draw_predictions(predictions: Predictions) -> Figure:
    """Draw prediction against truth, a panel for each value, with bars of one predicted standard deviation."""
    count = min(predictions.truth.shape[1], _MAX_COLUMNS)
    rows, columns = -(-count // 3), min(count, 3)
    figure, panels = new_panels(5.4 * columns, 5.2 * rows, rows=rows, columns=columns)
    for column, axes in zip(range(count), panels, strict=False):
        truth, prediction = predictions.truth[:, column], predictions.prediction[:, column]
        ends = [min(truth.min(), prediction.min()), max(truth.max(), prediction.max())]
        axes.plot(ends, ends, color="0.4", linestyle="--", linewidth=1, label="prediction = truth")
        if predictions.deviation is not None and len(predictions) <= _MAX_BARS:
            style: dict[str, Any] = {"fmt": "none", "ecolor": COLOURS[5], "elinewidth": 0.7, "zorder": 0}
            bars = predictions.deviation[:, column]
            axes.errorbar(truth, prediction, yerr=bars, label="± predicted deviation", **style)
        _draw_points(axes, truth, prediction, predictions)
        axes.set(xlabel=f"truth{_unit(column, count)}", ylabel=f"prediction{_unit(column, count)}")
        axes.set_title(_error_title(truth, prediction), fontsize=11)
        axes.legend(fontsize=9)
        axes.grid(alpha=0.3)
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure


def draw_residuals(predictions: Predictions) -> Figure:
    """Draw residual against prediction and the residuals' histogram, a row for each value."""
    count = min(predictions.truth.shape[1], _MAX_COLUMNS)
    options: dict[str, Any] = {"gridspec_kw": {"width_ratios": [3, 1]}, "sharey": "row"}
    figure, panels = new_panels(8.4, 4.2 * count, rows=count, columns=2, **options)
    for column in range(count):
        left, right = panels[2 * column : 2 * column + 2]
        prediction = predictions.prediction[:, column]
        residual = prediction - predictions.truth[:, column]
        left.axhline(0, color="0.4", linestyle="--", linewidth=1)
        _draw_points(left, prediction, residual, predictions)
        left.set(xlabel=f"prediction{_unit(column, count)}", ylabel="residual (prediction − truth)")
        spread = f"mean {residual.mean():.4g}, standard deviation {residual.std():.4g}"
        left.set_title(f"Residuals of {plural(len(residual), 'example')}: {spread}", fontsize=11)
        if predictions.mislabelled.any():
            left.legend(fontsize=9)
        if len(np.unique(residual)) > 1:
            right.hist(residual, bins=min(40, max(10, len(residual) // 5)), orientation="horizontal", color=COLOURS[0])
        right.set_xlabel("examples")
        for axes in (left, right):
            axes.grid(alpha=0.3)
    return figure


def _draw_points(axes: Axes, x: Array, y: Array, predictions: Predictions) -> None:
    """Draw examples as points, and as crosses where the target is not the truth."""
    wrong = predictions.mislabelled
    alpha = 0.7 if len(x) <= 1000 else 0.25
    axes.plot(x[~wrong], y[~wrong], "o", markersize=3.5, color=COLOURS[0], alpha=alpha)
    if wrong.any():
        label = f"target is not the truth ({wrong.sum():,})"
        axes.plot(x[wrong], y[wrong], "x", markersize=5, color=COLOURS[1], label=label)


def _unit(column: int, count: int) -> str:
    return f" {column}" if count > 1 else " (units of the target)"


def _error_title(truth: Array, prediction: Array) -> str:
    error = prediction - truth
    variance = truth.var()
    r2 = f"R² {1 - (error**2).mean() / variance:.4f}, " if variance > 0 and len(truth) > 1 else ""
    return f"{r2}MSE {(error**2).mean():.4g} over {plural(len(truth), 'example')}"


def draw_images(predictions: Predictions, source: Source, rows: Array) -> Figure:
    """Draw the images of these rows with truth, target, prediction and loss; framed where target is not truth."""
    images = load_images(source, predictions.index[rows])
    count = -(-len(rows) // _IMAGES_PER_ROW)
    height = 0.4 + 2.75 * count
    figure = new_figure(10.5, height, dpi=120, layout=None)
    # A fixed layout: the automatic one takes a second for 25 captions.
    layout = {"left": 0.01, "right": 0.99, "bottom": 0.1 / height, "top": 1 - 1.05 / height, "wspace": 0.06}
    layout["hspace"] = 0.36
    panels = list(figure.subplots(count, _IMAGES_PER_ROW, squeeze=False, gridspec_kw=layout).flat)
    for axes in panels:
        axes.set_axis_off()
    for axes, row, image in zip(panels, rows, images, strict=False):
        axes.set_axis_on()
        axes.set_xticks([])
        axes.set_yticks([])
        axes.imshow(image, cmap="gray" if image.ndim == 2 else None, interpolation="nearest")
        wrong = bool(predictions.mislabelled[row])
        for spine in axes.spines.values():
            spine.set(color=COLOURS[1] if wrong else "0.7", linewidth=3 if wrong else 0.8)
        axes.set_title(_caption(predictions, row), fontsize=8, color=COLOURS[1] if wrong else "black", loc="left")
    noisy = int(predictions.mislabelled[rows].sum())
    framed = f"; {noisy} with a target that is not the truth (framed)" if noisy else ""
    title = f"The {plural(len(rows), 'example')} of highest loss{framed}"
    figure.suptitle(title, fontsize=12, y=1 - 0.12 / height, va="top")
    return figure


def load_images(source: Source, index: Array) -> list[Array]:
    """The images of examples by their index: (H, W, 3) or (H, W), as bytes or scaled to 0..1."""
    rows = torch.from_numpy(index)
    if isinstance(source, Examples):  # in other sources the index is the row
        row_of = {number: row for row, number in enumerate(source.index.tolist())}
        rows = torch.tensor([row_of[number] for number in rows.tolist()], dtype=torch.int64).to(source.device)
    images = source.take(rows).inputs.cpu()
    if images.dtype != torch.uint8:  # network inputs (N, channels, H, W)
        images = images.permute(0, 2, 3, 1).double()
        low, high = (f(images, (1, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
        images = (images - low) / (high - low).clamp(min=1e-12)
    return [np.squeeze(image, 2) if image.shape[2] == 1 else image for image in images.numpy()]


def _caption(predictions: Predictions, row: int) -> str:
    names, task = predictions.class_names, predictions.spec.task

    def in_words(values: Array) -> str:
        if task is Task.REGRESSION:
            return ", ".join(f"{value:.3g}" for value in values[:3])
        if task is Task.MULTILABEL:
            labels = [name for name, value in zip(names, values, strict=True) if value > 0.5]
            return shorten(" ".join(labels) or "none", 24)
        return shorten(names[int(np.ravel(values)[0])], 22)

    target = predictions.target_class if task is Task.MULTICLASS else predictions.target
    confidence = ""
    if task in {Task.MULTICLASS, Task.BINARY}:
        confidence = f" ({np.ravel(predictions.confidence[row])[0]:.0%})"
    lines = [f"#{predictions.index[row]}   loss {predictions.loss[row]:.4g}"]
    lines += [f"truth {in_words(predictions.truth[row])}", f"target {in_words(target[row])}"]
    lines += [f"predicted {in_words(predictions.prediction[row])}{confidence}"]
    return "\n".join(lines)
