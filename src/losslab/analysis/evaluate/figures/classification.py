"""Whether probabilities mean what they say.

What is taken for what.

ROC and precision-recall curves.
"""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losslab.analysis.evaluate import metrics
from losslab.analysis.evaluate.figures import STYLES, panels, plural, short
from losslab.analysis.evaluate.metrics import Curve, Curves
from losslab.analysis.evaluate.predictions import Answers, Array
from losslab.io.figures import COLOURS
from losslab.models.metrics import ECE
from losslab.targets import Task


def draw_calibration(answers: Answers) -> Figure:
    """The reliability diagram over the bins of the yardstick ECE, and how many examples lie in each.

    Of exclusive classes it holds the share of right decisions against their confidence, of labels how often a label
    is true against its probability, all labels together.
    """
    ece = calibration(answers)
    count, confidence, right = (total.numpy() for total in (ece.count, ece.confidence, ece.correct))
    bins, filled = len(count), count > 0
    middle = (np.arange(bins) + 0.5)[filled] / bins
    count, confidence, right = count[filled], confidence[filled] / count[filled], right[filled] / count[filled]
    figure, (above, below) = panels(5.4, 6.0, rows=2, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    above.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="calibrated", zorder=3)
    bars: dict[str, Any] = {"width": 1 / bins, "edgecolor": "white", "color": COLOURS[5]}
    above.bar(middle, right, label="observed", **bars)
    above.plot(
        confidence, right, "o", color=COLOURS[1], markersize=5, clip_on=False, zorder=4, label="at mean confidence"
    )
    x, y = _words(answers)
    above.set(ylabel=y, ylim=(0, 1.02), xlim=(0, 1), title=_calibration_finding(ece, answers))
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    below.bar(middle, count, **bars)
    below.set(xlabel=x, ylabel="examples" if answers.facts.task is not Task.MULTILABEL else "labels")
    if count.max() > 100 * count.min():
        below.set_yscale("log")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    return figure


def calibration(answers: Answers) -> ECE:
    """The yardstick ECE of these answers, its bins filled; for several labels, of all their decisions together."""
    ece = ECE()
    ece.set_dtype(torch.float64)
    probabilities, truth = torch.as_tensor(answers.probabilities), torch.from_numpy(answers.truth)
    if answers.facts.task is not Task.MULTICLASS:
        probabilities, truth = probabilities.reshape(-1, 1).clamp(max=1), truth.reshape(-1, 1).double()
    ece.update(probabilities, truth)
    return ece


def value(ece: ECE) -> float:
    """Of filled bins, in this process alone: every process holds all examples."""
    return float((ece.correct - ece.confidence).abs().sum() / ece.count.sum())


def _words(answers: Answers) -> tuple[str, str]:
    if answers.facts.task is Task.MULTICLASS:
        return "confidence (probability of the predicted class)", "accuracy"
    if answers.facts.task is Task.BINARY:
        name = metrics.names(answers)[1]
        return f"probability of {name}", f"frequency of {name}"
    return "probability of a label", "frequency of the label"


def _calibration_finding(ece: ECE, answers: Answers) -> str:
    gap = float((ece.confidence.sum() - ece.correct.sum()) / ece.count.sum())
    if answers.facts.task is Task.MULTICLASS:
        tendency = "over-confident" if gap > 0 else "under-confident"
    else:
        tendency = "too high" if gap > 0 else "too low"
    return f"ECE {value(ece):.4f}: on average {abs(gap):.3f} {tendency}"


_WRITTEN = 25
"""Up to so many classes the cells hold their counts."""


def draw_confusion(answers: Answers) -> Figure:
    """The confusion matrix: counts as numbers, the share of the true class as colour."""
    matrix, named = metrics.confusion(answers), metrics.names(answers)
    if answers.facts.task is Task.MULTILABEL:
        figure = _picture(matrix, named, ["TN", "FP", "FN", "TP"], _labels_finding(matrix, named))
        figure.axes[0].set(xlabel="decision on the label", ylabel="label")
        return figure
    figure = _picture(matrix, named, named, _confusion_finding(matrix, named))
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


def _confusion_finding(matrix: Array, named: list[str]) -> str:
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


_TOLD_APART = 12
"""Up to so many classes each curve has its own colour; of more, only the worst have."""
_WORST = 5
_AVERAGES: dict[str, dict[str, Any]] = {
    "micro": {"color": "#000000", "linestyle": (0, (1, 1)), "linewidth": 2.5},
    "macro": {"color": "#000000", "linestyle": "-", "linewidth": 2.5},
}


def draw_curves(found: Curves, answers: Answers) -> Figure:
    """The curve of each class against the rest, and their averages; for a binary task one curve."""
    area = "AUC" if found.kind == "roc" else "AP"
    several = len(found.each) + len(found.missing) > 1
    figure, (axes,) = panels(8.0 if several else 5.4, 5.4)
    _chance(found, axes, answers)
    drawn: dict[str, Any] = {} if found.kind == "roc" else {"drawstyle": "steps-post"}
    for curve, style in _styled(found.each):
        label = None if style["color"] == "0.8" else f"{short(curve.name, 20)}  {curve.area:.4f}"
        axes.plot(curve.x, curve.y, label=label, **drawn, **style)
    for curve in found.averages:
        label = f"{curve.name} average  {curve.area:.4f}"
        axes.plot(curve.x, curve.y, label=label, **(drawn if curve.name == "micro" else {}), **_AVERAGES[curve.name])
    if found.kind == "roc":
        axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
    else:
        axes.set(xlabel="recall", ylabel="precision")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), title=_curve_finding(found, area, answers))
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)} if several else {"loc": "lower right"}
    axes.legend(title=area, fontsize=9, **place)
    return figure


def _chance(found: Curves, axes: Axes, answers: Answers) -> None:
    if found.kind == "roc":
        axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
        axes.text(0.62, 0.58, "chance", color="0.45", rotation=45, rotation_mode="anchor", fontsize=9)
    elif answers.truth.ndim == 2 and answers.truth.shape[1] == 1:
        share = float(answers.truth.mean())
        axes.axhline(share, color="0.6", linestyle="--", linewidth=1)
        axes.text(0.02, share + 0.015, "chance", color="0.45", fontsize=9)


def _styled(each: list[Curve]) -> list[tuple[Curve, dict[str, Any]]]:
    """Curves in the order they are drawn, each with its style; grey ones first."""
    if len(each) <= _TOLD_APART:
        return [(curve, STYLES[place] | {"linewidth": 1.3}) for place, curve in enumerate(each)]
    by_area = sorted(each, key=lambda curve: curve.area)
    grey: dict[str, Any] = {"color": "0.8", "linestyle": "-", "linewidth": 0.8}
    coloured = [(curve, STYLES[place] | {"linewidth": 1.3}) for place, curve in enumerate(by_area[:_WORST])]
    return [(curve, grey) for curve in by_area[_WORST:]] + coloured


def _curve_finding(found: Curves, area: str, answers: Answers) -> str:
    kind = "ROC" if found.kind == "roc" else "PR"
    if len(found.each) == 1:
        return f"{kind} of {short(found.each[0].name, 20)}: {area} {found.each[0].area:.4f}"
    worst = min(found.each, key=lambda curve: curve.area)
    macro = next(curve for curve in found.averages if curve.name == "macro")
    some = f"; {len(found.missing)} without a curve" if found.missing else ""
    unit = "class" if answers.facts.task is Task.MULTICLASS else "label"
    lowest = f"lowest: {unit} {short(worst.name, 20)}, {worst.area:.4f}"
    return f"{kind}: macro {area} {macro.area:.4f}; {lowest}{some}"
