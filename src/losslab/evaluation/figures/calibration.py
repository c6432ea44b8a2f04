"""Whether probabilities mean what they say."""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from losslab.evaluation import measures
from losslab.evaluation.answers import Answers
from losslab.evaluation.figures import panels
from losslab.metrics import ECE
from losslab.palette import COLOURS
from losslab.targets import Task


def draw(answers: Answers) -> Figure:
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
    above.set(ylabel=y, ylim=(0, 1.02), xlim=(0, 1), title=_finding(ece, answers))
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
        name = measures.names(answers)[1]
        return f"probability of {name}", f"frequency of {name}"
    return "probability of a label", "frequency of the label"


def _finding(ece: ECE, answers: Answers) -> str:
    gap = float((ece.confidence.sum() - ece.correct.sum()) / ece.count.sum())
    if answers.facts.task is Task.MULTICLASS:
        tendency = "over-confident" if gap > 0 else "under-confident"
    else:
        tendency = "too high" if gap > 0 else "too low"
    return f"ECE {value(ece):.4f}: on average {abs(gap):.3f} {tendency}"
