"""Histograms of the recorded examples over training: of their losses, and of their margins or residuals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from losslab.analysis.dynamics.figures.style import (
    DrawnFigure,
    Records,
    add_findings,
    format_number,
    format_percent,
    group_colours,
    run_styles,
)
from losslab.analysis.dynamics.record import Numbers, Record, largest_share
from losslab.io.figures import GREY, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_DOTS = 1000


def draw_losses(records: Records) -> DrawnFigure:
    """Draw a column per run with histograms of the losses at some snapshots.

    If there are several runs, the losses of each are divided by their mean in the first snapshot to share an x axis.
    """
    values = {label: normalise_loss(record) if len(records) > 1 else record.loss for label, record in records.items()}
    edges, logarithmic = loss_bins(list(values.values()))
    rows = max(len(_select_snapshots(record)) for record in records.values())
    figure = new_figure(7.2 if len(records) == 1 else 3.6 * len(records), 1.2 * rows + 1.5)
    grid = figure.subplots(rows, len(records), squeeze=False, sharex=True)
    for column, ((label, record), style) in enumerate(zip(records.items(), run_styles(records), strict=True)):
        colours = group_colours(record, style)
        for axes in _draw_rows(grid[:, column], record, values[label], edges, colours, open_below=logarithmic):
            axes.set_xscale("log" if logarithmic else "linear")
        if len(records) > 1:
            grid[0, column].set_title(label, fontsize="medium", loc="left")
    cut = f" (below {format_number(edges[0])}: in the first bin)" if logarithmic else ""
    unit = "loss of an example" if len(records) == 1 else "loss of an example ÷ the run's mean before training"
    figure.supxlabel(unit + cut, fontsize="medium")
    figure.supylabel("share of examples (each histogram scaled to its tallest bin)", fontsize="small")
    return add_findings(figure, {label: loss_finding(record) for label, record in records.items()})


def _draw_rows(
    column: NDArray[Any],
    record: Record,
    values: Numbers,
    edges: Numbers,
    colours: Sequence[str],
    *,
    open_below: bool = False,
) -> "list[Axes]":
    """Draw one histogram of n values per selected snapshot (`values` is (L, n)), and return the axes that are used."""
    snapshots = _select_snapshots(record)
    for axes in column[len(snapshots) :]:
        axes.set_axis_off()
    used = list(column[: len(snapshots)])
    for axes, row in zip(used, snapshots, strict=True):
        _draw_histogram(axes, record, values[row], edges, colours, open_below=open_below)
        axes.set_title(record.time_of(row), fontsize="small", loc="right", pad=2)
    if record.has_noise:
        used[0].legend(fontsize="small", loc="upper left")
    return used


def _draw_histogram(
    axes: "Axes", record: Record, values: Numbers, edges: Numbers, colours: Sequence[str], *, open_below: bool = False
) -> None:
    """Draw the share of examples in each bin, as a histogram for each of `record.groups`, scaled to the tallest bin.

    The outermost bins also contain values (n,) beyond the edges. With `open_below`, the first bin is cut off if the
    other bins would be too small to see.
    """
    tops = []
    for (name, members), colour in zip(record.groups.items(), colours, strict=False):
        inside = np.clip(values[members], edges[0], edges[-1])
        share = np.histogram(inside, edges)[0] / len(record.index)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.45, label=name)
        axes.stairs(share, edges, color=colour, linewidth=1)
        tops.append((share[0], share.max(), share[1:].max()))
    first, top, inner = np.max(tops, axis=0).tolist()
    if open_below and first > 2 * inner > 0:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
        axes.annotate(
            f" ← {format_percent(first)} in this bin", (1 / (len(edges) - 1), 0.86), xycoords="axes fraction",
            fontsize="small", color=GREY, va="center", bbox=box,
        )  # fmt: skip
        top = inner
    top = top or 1.0
    axes.set_ylim(0, 1.08 * top)
    axes.set_yticks([top], [format_percent(top)], fontsize="small")
    axes.set_xlim(float(edges[0]), float(edges[-1]))


def _select_snapshots(record: Record, most: int = 5) -> NDArray[np.int64]:
    """Return the indices of at most `most` snapshots at even distances, with the first and the last."""
    return np.unique(np.linspace(0, len(record.epoch) - 1, most).round().astype(np.int64))


def normalise_loss(record: Record) -> Numbers:
    """Return the losses divided by their mean in the first snapshot (L, n). Negative losses are first shifted to 0."""
    low = min(0.0, float(record.loss.min()))
    start = float(np.mean(record.loss[0], dtype=np.float64)) - low
    return (record.loss - low) / (start or 1.0)


def loss_bins(values: list[Numbers]) -> tuple[Numbers, bool]:
    """Return bin edges for the losses of all runs, and whether the bins are logarithmic.

    They are logarithmic if at some snapshot half of the losses are far below the largest loss. They then start at the
    2 % quantile of the positive losses, and span at most nine decades.
    """
    low, high = min(float(part.min()) for part in values), max(float(part.max()) for part in values)
    medians = [float(np.median(row)) for part in values for row in part]
    if low >= 0 and high > 0 and min(medians) < high / 50:
        least = min(float(np.quantile(part[part > 0], 0.02)) for part in values if (part > 0).any())
        return np.geomspace(max(1e-9 * high, least), high * 1.05, 61), True
    span = (high - low) or 1.0
    return np.linspace(low - 0.02 * span, high + 0.02 * span, 61), False


def loss_finding(record: Record) -> str:
    """Describe the distribution of the loss at the end of training."""
    last = record.loss[-1]
    if record.has_noise:
        right, wrong = (format_number(float(np.median(last[row]))) for row in (~record.corrupted, record.corrupted))
        what = "values" if record.is_regression else "labels"
        return f"at the end, the median loss is {wrong} with wrong {what}, {right} with right {what}"
    share = largest_share(last - min(0.0, float(last.min())))
    part, median = format_percent(0.1 if np.isnan(share) else share), format_number(float(np.median(last)))
    return f"at the end, the 10 % of examples with the largest loss make up {part} of its sum (median loss {median})"


def draw_margins(records: Records) -> DrawnFigure:
    """Draw a column per run: gradient norm over margin, and below it histograms of the margins at some snapshots.

    The dots are recorded examples at these snapshots. The line is computed from the loss by `recording.loss_slope`. If
    there are several runs, the gradient norms of each are divided by their largest value in the figure.
    """
    edges = dict(zip(records, margin_bins([*records.values()]), strict=True))
    rows = max(len(_select_snapshots(record)) for record in records.values())
    figure = new_figure(7.2 if len(records) == 1 else 3.6 * len(records), 1.05 * rows + 3.4)
    grid = figure.subplots(rows + 1, len(records), squeeze=False, sharex="col", height_ratios=[2.6, *[1] * rows])
    for column, ((label, record), style) in enumerate(zip(records.items(), run_styles(records), strict=True)):
        _draw_gradient_over_margin(grid[0, column], record, edges[label], single=len(records) == 1)
        if column == 0:
            grid[0, column].legend(fontsize="x-small", markerscale=2, framealpha=0.8)
        for axes in _draw_rows(grid[1:, column], record, record.margin, edges[label], group_colours(record, style)):
            axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
        if len(records) > 1:
            grid[0, column].set_title(label, fontsize="medium", pad=16)
    note = "" if len({float(each[0]) for each in edges.values()}) == 1 else "; each run has its own axis"
    figure.supxlabel(_margin_label(next(iter(records.values()))) + note, fontsize="medium")
    figure.supylabel("share of examples (each histogram scaled to its tallest bin); top: gradient", fontsize="small")
    return add_findings(figure, {label: margin_finding(record) for label, record in records.items()})


def _margin_label(record: Record) -> str:
    what = "margin: output in favour of the label"
    if record.is_regression:
        what = "residual z - t" if record.target[0].size == 1 else "root mean square residual"
    elif record.task == "multiclass":
        what = "margin: output of the target minus the largest other"
    return f"{what} (outermost bins are open)"


def _draw_gradient_over_margin(axes: "Axes", record: Record, edges: Numbers, *, single: bool) -> None:
    from matplotlib import colormaps  # noqa: PLC0415 -- not needed to train

    inside = (record.line >= edges[0]) & (record.line <= edges[-1]) & np.isfinite(record.slope[-1])
    snapshots = _select_snapshots(record)
    largest = max([1e-30, *record.slope[-1][inside], *(record.gradient[row].max() for row in snapshots)])
    unit = 1.0 if single else float(largest)
    shades = colormaps["viridis"](np.linspace(0, 0.92, len(snapshots)))
    for row, colour in zip(snapshots, shades, strict=True):
        axes.plot(
            record.margin[row][:_MAX_DOTS], record.gradient[row][:_MAX_DOTS] / unit, ".", color=colour, markersize=5,
            alpha=0.5, label=record.time_of(row), markeredgewidth=0, zorder=3,
        )  # fmt: skip
    if inside.any():
        label = "if all other outputs are equal" if record.task == "multiclass" else "computed from the loss"
        axes.plot(record.line[inside], record.slope[-1][inside] / unit, color="black", linewidth=2, label=label)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylabel("‖∂ℓ/∂z‖ of an example" if single else "‖∂ℓ/∂z‖ ÷ its largest value", fontsize="small")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if not record.is_regression:
        for side, word in (("right", "not predicted "), ("left", " predicted")):
            axes.annotate(word, (0, 1.01), xycoords=("data", "axes fraction"), ha=side, fontsize="small", color=GREY)


def margin_bins(records: list[Record]) -> list[Numbers]:
    """Return the bin edges of each run. All are the same, unless one range is over four times as wide as another."""
    ranges = []
    for record in records:  # the range contains 0 and 99.8 % of the margins at each snapshot
        outside = 0.01 if record.is_regression else 0.001  # residuals have long tails
        ends = np.quantile(record.margin[_select_snapshots(record)], (outside, 1 - outside), axis=1)
        ranges.append((min(0.0, float(ends.min())), max(0.0, float(ends.max()))))
    widths = [high - low for low, high in ranges]
    if max(widths) <= 4 * min(widths):
        ranges = [(min(low for low, _ in ranges), max(high for _, high in ranges))] * len(records)
    bins: list[Numbers] = []
    for record, (low, high) in zip(records, ranges, strict=True):
        space = 0.04 * (high - low) or 1.0
        start = low if record.is_regression else min(low, -0.1 * high)  # room for the words "not predicted"
        bins.append(np.linspace(start - space, high + space, 81))
    return bins


def margin_finding(record: Record) -> str:
    """Describe the margins at the end of training, and the margins of the examples that contribute most gradient."""
    last, gradient = record.margin[-1], record.gradient[-1].astype(np.float64)
    margin = np.abs(last) if record.is_regression else last
    order = np.argsort(-margin if record.is_regression else margin)
    total = gradient.sum()
    if total <= 0:
        return "at the end, no example has a gradient"
    half = format_number(float(margin[order][np.searchsorted(gradient[order].cumsum(), total / 2)]))
    if record.is_regression:
        share = format_percent(float((margin >= float(half.replace(",", ""))).mean()))
        return f"at the end, half of the gradient comes from residuals beyond ±{half}: {share} of the examples"
    right = format_percent(float((last > 0).mean()))
    return f"at the end, {right} of the targets are predicted; half of the gradient comes from margins below {half}"
