"""Margins over training, or residuals, and above them the weight that the loss gives to each."""

from typing import TYPE_CHECKING

import numpy as np

from losslab.analysis.dynamics.figures.style import (
    GREY,
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
from losslab.io.figures import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DOTS = 1000
_ALIKE = 4
"""Margins that are wider by more do not share an axis: the narrower ones would be a single bin."""


def draw(records: Records) -> Drawn:
    """A column for each run: on top the gradient's norm over the margin, below histograms of some looks.

    The dots are the recorded examples of these looks; the line is the loss's own (see `losslab.analysis.dynamics.gradients`). The
    gradients of several losses are each divided by the largest that is shown.
    """
    edges = dict(zip(records, bins([*records.values()]), strict=True))
    rows = max(len(shown_looks(record)) for record in records.values())
    figure = new_figure(7.2 if len(records) == 1 else 3.6 * len(records), 1.05 * rows + 3.4)
    grid = figure.subplots(rows + 1, len(records), squeeze=False, sharex="col", height_ratios=[2.6, *[1] * rows])
    for column, (label, record) in enumerate(records.items()):
        _weights(grid[0, column], record, edges[label], alone=len(records) == 1)
        if column == 0:
            grid[0, column].legend(fontsize="x-small", markerscale=2, framealpha=0.8)
        looks = shown_looks(record)
        for row, axes in enumerate(grid[1:, column]):
            if row >= len(looks):
                axes.set_axis_off()
                continue
            histogram(axes, record, record.margin[looks[row]], edges[label])
            label_row(axes, moment(record, looks[row]))
            axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
        if len(records) > 1:
            grid[0, column].set_title(label, fontsize="medium", pad=16)
        if record.has_noise:
            grid[1, column].legend(fontsize="small", loc="upper left")
    shared = len({float(each[0]) for each in edges.values()}) == 1
    figure.supxlabel(
        _axis(next(iter(records.values()))) + ("" if shared else "; each run on its own axis"), fontsize="medium"
    )
    figure.supylabel("share of examples, each row up to its tallest bin; above: gradient", fontsize="small")
    return finished(figure, {label: finding(record) for label, record in records.items()})


def _axis(record: Record) -> str:
    if record.of_values:
        what = "residual z - t" if record.target[0].size == 1 else "root mean square residual"
    elif record.task == "multiclass":
        what = "margin: output of the target less the largest other"
    else:
        what = "margin: output in favour of the label"
    return f"{what} (outermost bins: and beyond)"


def _weights(axes: "Axes", record: Record, edges: Numbers, *, alone: bool) -> None:
    from matplotlib import colormaps  # noqa: PLC0415 -- not needed to train

    inside = (record.line >= edges[0]) & (record.line <= edges[-1]) & np.isfinite(record.slope[-1])
    looks = shown_looks(record)
    largest = max([1e-30, *record.slope[-1][inside], *(record.gradient[look].max() for look in looks)])
    unit = 1.0 if alone else float(largest)
    shades = colormaps["viridis"](np.linspace(0, 0.92, len(looks)))
    for look, colour in zip(looks, shades, strict=True):
        axes.plot(
            record.margin[look][:_DOTS], record.gradient[look][:_DOTS] / unit, ".", color=colour, markersize=5,
            alpha=0.5, label=moment(record, look), markeredgewidth=0, zorder=3,
        )  # fmt: skip
    if inside.any():
        label = "all other outputs alike" if record.task == "multiclass" else "the loss itself"
        axes.plot(record.line[inside], record.slope[-1][inside] / unit, color=COLOURS[1], linewidth=2, label=label)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylabel("‖∂ℓ/∂z‖ of an example" if alone else "‖∂ℓ/∂z‖ ÷ its largest", fontsize="small")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if not record.of_values:
        for side, word in (("right", "not predicted "), ("left", " predicted")):
            axes.annotate(word, (0, 1.01), xycoords=("data", "axes fraction"), ha=side, fontsize="small", color=GREY)


def bins(records: list[Record]) -> list[Numbers]:
    """The edges of each run's bins: the same for all, unless the margins of some are much smaller than others'."""
    ends = [_ends(record) for record in records]
    widths = [high - low for low, high in ends]
    if max(widths) <= _ALIKE * min(widths):
        ends = [(min(low for low, _ in ends), max(high for _, high in ends))] * len(records)
    return [_bins(record, *own) for record, own in zip(records, ends, strict=True)]


def _ends(record: Record) -> tuple[float, float]:
    """0, and 99.8 % of the margins of each look; of residuals, whose tails are long, 98 %."""
    outside = 0.01 if record.of_values else 0.001
    ends = [np.quantile(row, (outside, 1 - outside)) for row in record.margin[shown_looks(record)]]
    return min(0.0, *(float(end[0]) for end in ends)), max(0.0, *(float(end[1]) for end in ends))


def _bins(record: Record, low: float, high: float) -> Numbers:
    space = 0.04 * (high - low) or 1.0
    if not record.of_values:
        low = min(low, -0.1 * high)  # room for the word that says which side is wrong
    return np.linspace(low - space, high + space, 81)


def finding(record: Record) -> str:
    """Where the margins are at the end, and where the gradient comes from."""
    last, gradient = record.margin[-1], record.gradient[-1].astype(np.float64)
    place = np.abs(last) if record.of_values else last
    order = np.argsort(-place if record.of_values else place)
    total = gradient.sum()
    if total <= 0:
        return "at the end no example has a gradient"
    half = number(float(place[order][np.searchsorted(gradient[order].cumsum(), total / 2)]))
    if record.of_values:
        share = float((place >= float(half.replace(",", ""))).mean())
        return f"at the end half of the gradient comes from residuals beyond ±{half}: {percent(share)} of the examples"
    right = percent(float((last > 0).mean()))
    return f"at the end {right} of the targets are predicted; half of the gradient comes from margins below {half}"
