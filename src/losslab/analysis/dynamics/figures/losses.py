"""Histograms of the examples' losses over training."""

import numpy as np

from losslab.analysis.dynamics.figures.style import (
    Drawn,
    Records,
    finished,
    histogram,
    label_row,
    moment,
    new_figure,
    number,
    percent,
    shown_looks,
)
from losslab.analysis.dynamics.record import Numbers, Record


def draw(records: Records) -> Drawn:
    """A column for each run, a row for each of some looks.

    Several losses share an axis only after each was divided by its own mean in the first look.
    """
    values = {label: normalised(record) if len(records) > 1 else record.loss for label, record in records.items()}
    edges, logarithmic = bins(list(values.values()))
    rows = max(len(shown_looks(record)) for record in records.values())
    figure = new_figure(7.2 if len(records) == 1 else 3.6 * len(records), 1.2 * rows + 1.5)
    grid = figure.subplots(rows, len(records), squeeze=False, sharex=True)
    for column, (label, record) in enumerate(records.items()):
        looks = shown_looks(record)
        for row, axes in enumerate(grid[:, column]):
            if row >= len(looks):
                axes.set_axis_off()
                continue
            histogram(axes, record, values[label][looks[row]], edges, open_below=logarithmic)
            label_row(axes, moment(record, looks[row]))
            if logarithmic:
                axes.set_xscale("log")
        if len(records) > 1:
            grid[0, column].set_title(label, fontsize="medium", loc="left")
        if record.has_noise:
            grid[0, column].legend(fontsize="small", loc="upper left")
    cut = f" (below {number(edges[0])}: in the first bin)" if logarithmic else ""
    what = "loss of an example" if len(records) == 1 else "loss of an example ÷ the mean of its run before training"
    figure.supxlabel(what + cut, fontsize="medium")
    figure.supylabel("share of examples, each row up to its tallest bin", fontsize="small")
    return finished(figure, {label: finding(record) for label, record in records.items()})


def normalised(record: Record) -> Numbers:
    """Each loss over its mean in the first look → (L, n); from the smallest loss up where some are below 0."""
    low = min(0.0, float(record.loss.min()))
    start = float(np.mean(record.loss[0], dtype=np.float64)) - low
    return (record.loss - low) / (start or 1.0)


def bins(values: list[Numbers]) -> tuple[Numbers, bool]:
    """The edges of the bins for all values, and whether they are logarithmic.

    They are where half of the losses of some look are far below the largest. Then nine decades are shown at most, and
    no more than it takes to show 98 % of the losses that are not 0.
    """
    low, high = min(float(part.min()) for part in values), max(float(part.max()) for part in values)
    medians = [float(np.median(row)) for part in values for row in part]
    if low >= 0 and high > 0 and min(medians) < high / 50:
        least = min(float(np.quantile(part[part > 0], 0.02)) for part in values if (part > 0).any())
        return np.geomspace(max(1e-9 * high, least), high * 1.05, 61), True
    span = (high - low) or 1.0
    return np.linspace(low - 0.02 * span, high + 0.02 * span, 61), False


def finding(record: Record) -> str:
    """How the loss is spread at the end."""
    last = record.loss[-1]
    if record.has_noise:
        right, wrong = (float(np.median(last[members])) for members in (~record.corrupted, record.corrupted))
        what = "value" if record.of_values else "label"
        return f"at the end a wrong {what} costs {number(wrong)} (median) and a right one {number(right)}"
    shifted = last - min(0.0, float(last.min()))
    count = max(1, len(last) // 10)
    total = float(shifted.sum(dtype=np.float64))
    share = float(np.sort(shifted)[-count:].sum(dtype=np.float64)) / total if total > 0 else 0.1
    middle = number(float(np.median(last)))
    return f"at the end the costliest 10 % of examples make {percent(share)} of the loss (median {middle})"
