"""Figures of an evaluation, with the result in their titles."""

from collections.abc import Mapping
from itertools import product
from textwrap import fill
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losslab.analysis.evaluate.extra_metrics import Curve, Curves, confusion_matrix
from losslab.analysis.evaluate.predictions import Array, Predictions
from losslab.data.batch import Examples, Source
from losslab.io.figures import COLOURS, new_figure
from losslab.models.metrics import ECE
from losslab.targets import Task

_STYLES: list[dict[str, Any]] = [
    {"color": colour, "linestyle": style, "linewidth": 1.3} for style, colour in product(("-", "--", ":"), COLOURS[:-1])
]
"""Line styles of the curves of classes, without black, which is the colour of averages."""
_MAX_COLUMNS = 6
"""Largest number of values per example that are drawn; further values are left out."""
_MAX_BARS = 500
"""Largest number of examples for which predicted standard deviations are drawn as error bars."""
_IMAGES_PER_ROW = 5
_MAX_CLASSES_WITH_COUNTS = 25
"""Largest number of classes or labels for which the cells of a confusion matrix show their counts."""
_MAX_COLOURED, _WORST = 12, 5
"""If there are more than 12 classes, the curves of the 5 worst have colours, and the others are grey."""
_CURVE_LABELS = {"roc": ("AUC", "false-positive rate", "true-positive rate"), "pr": ("AP", "recall", "precision")}
"""By kind of curve, the name of the area, the label of the x axis, and the label of the y axis."""
_AVERAGES: dict[str, dict[str, Any]] = {
    "micro": {"color": "#000000", "linestyle": (0, (1, 1)), "linewidth": 2.5},
    "macro": {"color": "#000000", "linestyle": "-", "linewidth": 2.5},
}
"""Line styles of the average curves."""


def add_note(figure: Figure, note: str) -> Figure:
    """Add a note in small print below the panels, or above them if a legend is below them or the layout is fixed."""
    width, height = figure.get_size_inches()
    lines, style = fill(note, int(18 * width), break_on_hyphens=False), dict[str, Any](fontsize=7, color="0.35")
    if figure.get_layout_engine() is None:
        figure.text(0.5, 1 - 0.36 / height, lines, ha="center", va="top", **style)  # below the title
    else:
        draw_text = figure.suptitle if figure.legends else figure.supxlabel
        draw_text(lines, **style)
    return figure


def shorten(name: str, length: int = 14) -> str:
    """Shorten a name that has more than `length` characters; its end is then an ellipsis."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def plural(count: int, noun: str) -> str:
    """Format a count with its noun, such as "1 example" or "2,000 examples"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def draw_predictions(predictions: Predictions) -> Figure:
    """Draw prediction against truth in a panel for each value, with the predicted standard deviations as bars."""
    count = min(predictions.truth.shape[1], _MAX_COLUMNS)
    rows, columns = -(-count // 3), min(count, 3)
    figure = new_figure(5.4 * columns, 5.2 * rows, dpi=120)
    for column in range(count):
        axes = figure.add_subplot(rows, columns, column + 1)
        truth, prediction = predictions.truth[:, column], predictions.prediction[:, column]
        ends = [min(truth.min(), prediction.min()), max(truth.max(), prediction.max())]
        axes.plot(ends, ends, color="0.4", linestyle="--", linewidth=1, label="prediction = truth")
        if predictions.deviation is not None and len(predictions) <= _MAX_BARS:
            style: dict[str, Any] = {"fmt": "none", "ecolor": COLOURS[5], "elinewidth": 0.7, "zorder": 0}
            bars = predictions.deviation[:, column]
            axes.errorbar(truth, prediction, yerr=bars, label="± predicted deviation", **style)
        _draw_points(axes, truth, prediction, predictions)
        unit = f" {column}" if count > 1 else " (units of the target)"
        axes.set(xlabel=f"truth{unit}", ylabel=f"prediction{unit}")
        error, variance = prediction - truth, truth.var()
        r2 = f"R² {1 - (error**2).mean() / variance:.4f}, " if variance > 0 and len(truth) > 1 else ""
        axes.set_title(f"{r2}MSE {(error**2).mean():.4g} over {plural(len(truth), 'example')}", fontsize=11)
        axes.legend(fontsize=9)
        axes.grid(alpha=0.3)
    return figure


def draw_residuals(predictions: Predictions) -> Figure:
    """Draw the residual against the prediction and a histogram of the residuals, in a row for each value."""
    count = min(predictions.truth.shape[1], _MAX_COLUMNS)
    figure = new_figure(8.4, 4.2 * count, dpi=120)
    panels = figure.subplots(count, 2, squeeze=False, sharey="row", width_ratios=[3, 1])
    for column, (left, right) in enumerate(panels):
        prediction = predictions.prediction[:, column]
        residual = prediction - predictions.truth[:, column]
        left.axhline(0, color="0.4", linestyle="--", linewidth=1)
        _draw_points(left, prediction, residual, predictions)
        unit = f" {column}" if count > 1 else " (units of the target)"
        left.set(xlabel=f"prediction{unit}", ylabel="residual (prediction − truth)")
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
    """Draw examples as points, or as crosses if their targets differ from the truth."""
    wrong = predictions.mislabelled
    alpha = 0.7 if len(x) <= 1000 else 0.25
    axes.plot(x[~wrong], y[~wrong], "o", markersize=3.5, color=COLOURS[0], alpha=alpha)
    if wrong.any():
        label = f"target differs from the truth ({wrong.sum():,})"
        axes.plot(x[wrong], y[wrong], "x", markersize=5, color=COLOURS[1], label=label)


def draw_calibration(predictions: Predictions) -> Figure:
    """Draw a reliability diagram, and below it the number of examples in each bin. `ECE` has the same bins.

    The diagram of a multiclass task shows accuracy against confidence. For a binary or multilabel task, it shows how
    often a label is 1 against its predicted probability, over all labels together.
    """
    return draw_calibrations({"": predictions})


def draw_calibrations(columns: Mapping[str, Predictions]) -> Figure:
    """Draw the reliability diagrams of several predictions for the same examples side by side, each with its name."""
    figure = new_figure(5.4 * len(columns), 6.0, dpi=120)
    panels = figure.subplots(2, len(columns), sharex=True, sharey="row", squeeze=False, height_ratios=[3, 1])
    counts = [_draw_reliability(*pair, *panel) for pair, *panel in zip(columns.items(), *panels, strict=True)]
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    is_multilabel = next(iter(columns.values())).spec.task is Task.MULTILABEL
    panels[1, 0].set_ylabel("labels" if is_multilabel else "examples")
    if max(map(max, counts)) > 100 * min(map(min, counts)):
        panels[1, 0].set_yscale("log")
    for axes in panels.flat:
        axes.label_outer()
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    return figure


def _draw_reliability(name: str, predictions: Predictions, above: Axes, below: Axes) -> Array:
    """Draw a reliability diagram and the number of examples in each bin. Return these numbers, without zeros."""
    ece = calibration(predictions)
    count, confidence, correct = (total.numpy() for total in (ece.count, ece.confidence, ece.correct))
    bins, filled = len(count), count > 0
    middle = (np.arange(bins) + 0.5)[filled] / bins
    count, confidence, correct = count[filled], confidence[filled] / count[filled], correct[filled] / count[filled]
    above.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="calibrated", zorder=3)
    bars: dict[str, Any] = {"width": 1 / bins, "edgecolor": "white", "color": COLOURS[5]}
    above.bar(middle, correct, label="observed", **bars)
    points: dict[str, Any] = {"color": COLOURS[1], "markersize": 5, "clip_on": False, "zorder": 4}
    above.plot(confidence, correct, "o", label="at mean confidence", **points)
    x, y, title = _describe_calibration(ece, predictions)
    above.set(ylabel=y, ylim=(0, 1.02), xlim=(0, 1), title=f"{name}\n{title}" if name else title)
    below.bar(middle, count, **bars)
    below.set(xlabel=x)
    return np.asarray(count)


def calibration(predictions: Predictions) -> ECE:
    """Return the metric `ECE`, updated with all examples."""
    ece = ECE()
    ece.set_dtype(torch.float64)
    probabilities, truth = torch.as_tensor(predictions.probabilities), torch.from_numpy(predictions.truth)
    if predictions.spec.task is not Task.MULTICLASS:
        probabilities, truth = probabilities.reshape(-1, 1).clamp(max=1), truth.reshape(-1, 1).double()
    ece.update(probabilities, truth)
    return ece


def _describe_calibration(ece: ECE, predictions: Predictions) -> tuple[str, str, str]:
    """Return the label of the x axis, the label of the y axis, and the title of the reliability diagram."""
    value = float((ece.correct - ece.confidence).abs().sum() / ece.count.sum())
    gap = float((ece.confidence.sum() - ece.correct.sum()) / ece.count.sum())
    x, y = "probability of a label", "frequency of the label"
    tendency = f"probabilities too {'high' if gap > 0 else 'low'}"
    if predictions.spec.task is Task.MULTICLASS:
        x, y = "confidence (probability of the predicted class)", "accuracy"
        tendency = "over-confident" if gap > 0 else "under-confident"
    elif predictions.spec.task is Task.BINARY:
        x, y = (f"{what} of {predictions.spec.names[1]}" for what in ("probability", "frequency"))
    return x, y, f"ECE {value:.4f}: {tendency} by {abs(gap):.3f} on average"


def draw_confusion(predictions: Predictions) -> Figure:
    """Draw the confusion matrix. Numbers are counts, colours are shares of a row (a true class, or a label)."""
    matrix, rows = confusion_matrix(predictions), predictions.spec.names
    if predictions.spec.task is Task.MULTILABEL:
        columns, title = ["TN", "FP", "FN", "TP"], _multilabel_title(matrix, rows)
        x, y = "decision on the label", "label"
    else:
        columns, title, x, y = rows, _confusion_title(matrix, rows), "prediction", "truth"
    height = float(np.clip(0.5 * len(rows) + 1.9, 4.2, 14))
    width = height + 1.0 if len(rows) == len(columns) else max(5.5, 0.8 * len(columns) + 2)
    figure = new_figure(width, height, dpi=120)
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for names, axis in ((columns, axes.xaxis), (rows, axes.yaxis)):
        every = max(1, len(names) // 50)
        axis.set_ticks(range(0, len(names), every), [shorten(name) for name in names[::every]])
    longest = max(len(shorten(name)) for name in columns)
    axes.tick_params(axis="x", rotation=90 if len(columns) > 4 and longest > 3 else 0)
    if len(rows) <= _MAX_CLASSES_WITH_COUNTS:
        size = 9 if matrix.max() < 1000 or len(rows) <= 12 else 7
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if share[row, column] < 0.55 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=size)
    figure.colorbar(image, ax=axes, fraction=0.05, label="share of the row")
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=11, wrap=True)
    return figure


def _confusion_title(matrix: Array, names: list[str]) -> str:
    right, count = int(np.trace(matrix)), int(matrix.sum())
    wrong = matrix - np.diag(np.diag(matrix))
    title = f"{right:,} of {plural(count, 'example')} predicted correctly ({right / count:.1%})"
    if not wrong.any():
        return title
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    pair = f"{shorten(names[row], 20)} predicted as {shorten(names[column], 20)}"
    return f"{title};\nmost frequent error: {pair} ({wrong[row, column]:,} of {matrix[row].sum():,})"


def _multilabel_title(matrix: Array, names: list[str]) -> str:
    wrong = matrix[:, 1] + matrix[:, 2]
    decisions, worst = int(matrix.sum()), int(wrong.argmax())
    title = f"{1 - wrong.sum() / decisions:.1%} of {decisions:,} decisions correct"
    return f"{title};\nmost errors: {shorten(names[worst], 20)} ({wrong[worst]:,})" if wrong.any() else title


def draw_curves(curves: Curves, predictions: Predictions) -> Figure:
    """Draw the ROC or PR curve of each class or label, and the average curves; in a binary task, a single curve."""
    area, x, y = _CURVE_LABELS[curves.kind]
    several = len(curves.each) + len(curves.missing) > 1
    figure = new_figure(8.0 if several else 5.4, 5.4, dpi=120)
    axes = figure.subplots()
    _draw_chance(curves, axes, predictions)
    steps: dict[str, Any] = {} if curves.kind == "roc" else {"drawstyle": "steps-post"}
    for curve, style in _with_styles(curves.each):
        label = None if style["color"] == "0.8" else f"{shorten(curve.name, 20)}  {curve.area:.4f}"
        axes.plot(curve.x, curve.y, label=label, **steps, **style)
    for curve in curves.averages:
        label = f"{curve.name} average  {curve.area:.4f}"
        axes.plot(curve.x, curve.y, label=label, **(steps if curve.name == "micro" else {}), **_AVERAGES[curve.name])
    axes.set(xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_title(_curves_title(curves, area, predictions))
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    right_of_axes: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
    axes.legend(title=area, fontsize=9, **(right_of_axes if several else {"loc": "lower right"}))
    return figure


def _draw_chance(curves: Curves, axes: Axes, predictions: Predictions) -> None:
    if curves.kind == "roc":
        axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
        axes.text(0.62, 0.58, "chance", color="0.45", rotation=45, rotation_mode="anchor", fontsize=9)
    elif predictions.truth.ndim == 2 and predictions.truth.shape[1] == 1:
        share = float(predictions.truth.mean())
        axes.axhline(share, color="0.6", linestyle="--", linewidth=1)
        axes.text(0.02, share + 0.015, "chance", color="0.45", fontsize=9)


def _with_styles(each: list[Curve]) -> list[tuple[Curve, dict[str, Any]]]:
    """Return each curve with its style, in the order in which the curves are drawn: grey curves first."""
    if len(each) <= _MAX_COLOURED:
        return list(zip(each, _STYLES, strict=False))
    by_area = sorted(each, key=lambda curve: curve.area)
    grey: dict[str, Any] = {"color": "0.8", "linestyle": "-", "linewidth": 0.8}
    return [(curve, grey) for curve in by_area[_WORST:]] + list(zip(by_area[:_WORST], _STYLES, strict=False))


def _curves_title(curves: Curves, area: str, predictions: Predictions) -> str:
    kind = curves.kind.upper()
    if len(curves.each) == 1:
        return f"{kind} of {shorten(curves.each[0].name, 20)}: {area} {curves.each[0].area:.4f}"
    worst = min(curves.each, key=lambda curve: curve.area)
    macro = next(curve for curve in curves.averages if curve.name == "macro")
    missing = f"; {len(curves.missing)} without a curve" if curves.missing else ""
    unit = "class" if predictions.spec.task is Task.MULTICLASS else "label"
    lowest = f"lowest: {unit} {shorten(worst.name, 20)}, {worst.area:.4f}"
    return f"{kind}: macro {area} {macro.area:.4f}; {lowest}{missing}"


def draw_images(predictions: Predictions, source: Source, rows: Array) -> Figure:
    """Draw the images of these rows with captions. An image is framed if its target differs from the truth."""
    images = load_images(source, predictions.index[rows])
    count = -(-len(rows) // _IMAGES_PER_ROW)
    height = 0.4 + 2.75 * count
    # The layout is fixed, because constrained layout takes a second for 25 captions.
    figure = new_figure(10.5, height, dpi=120, layout=None)
    figure.subplots_adjust(0.01, 0.1 / height, 0.99, 1 - 1.05 / height, wspace=0.06, hspace=0.36)
    for number, (row, image) in enumerate(zip(rows, images, strict=True), 1):
        axes = figure.add_subplot(count, _IMAGES_PER_ROW, number, xticks=[], yticks=[])
        axes.imshow(image, cmap="gray" if image.ndim == 2 else None, interpolation="nearest")
        wrong = bool(predictions.mislabelled[row])
        for spine in axes.spines.values():
            spine.set(color=COLOURS[1] if wrong else "0.7", linewidth=3 if wrong else 0.8)
        axes.set_title(_caption(predictions, row), fontsize=8, color=COLOURS[1] if wrong else "black", loc="left")
    noisy = int(predictions.mislabelled[rows].sum())
    framed = f"; framed: the target differs from the truth ({noisy})" if noisy else ""
    title = f"The {plural(len(rows), 'example')} with the highest loss{framed}"
    figure.suptitle(title, fontsize=12, y=1 - 0.12 / height, va="top")
    return figure


def load_images(source: Source, index: Array) -> list[Array]:
    """Return the images with these indices, each as an array (H, W, 3) or (H, W) of uint8 or of floats from 0 to 1."""
    rows = torch.from_numpy(index)
    if isinstance(source, Examples):  # in other sources, the index of an example is its row
        indices, order = source.index.sort()
        rows = order[torch.searchsorted(indices, rows.to(source.device))]
    images = source.take(rows).inputs.cpu()
    if images.dtype != torch.uint8:  # network inputs (N, channels, H, W)
        images = images.permute(0, 2, 3, 1).double()
        low, high = (f(images, (1, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
        images = (images - low) / (high - low).clamp(min=1e-12)
    return [np.squeeze(image, 2) if image.shape[2] == 1 else image for image in images.numpy()]


def _caption(predictions: Predictions, row: int) -> str:
    names, task = predictions.spec.names, predictions.spec.task

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
    assert predictions.loss is not None  # noqa: S101 -- for the type checker
    lines = [f"#{predictions.index[row]}   loss {predictions.loss[row]:.4g}"]
    lines += [f"truth {in_words(predictions.truth[row])}", f"target {in_words(target[row])}"]
    lines += [f"predicted {in_words(predictions.prediction[row])}{confidence}"]
    return "\n".join(lines)
