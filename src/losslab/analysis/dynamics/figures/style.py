"""What the figures of training dynamics share: layout, histograms, the snapshots shown, and number formats."""

from collections.abc import Mapping
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from losslab.analysis.dynamics.record import Numbers, Record
from losslab.io.figures import COLOURS, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Records = Mapping[str, Record]
"""Runs by their labels in a figure."""


class DrawnFigure(NamedTuple):
    """A figure and its findings: a sentence for each run, which starts with the run's label if there are several."""

    figure: "Figure"
    findings: list[str]


def add_findings(figure: "Figure", findings: Mapping[str, str]) -> DrawnFigure:
    """Write the findings above a figure: one run's as its title, a line each for several."""
    width = int(13.5 * figure.get_figwidth())  # in characters
    lines = [f"{label}: {finding}" for label, finding in findings.items()]
    if len(findings) > 1:
        figure.suptitle("\n".join(fill(line, width) for line in lines), fontsize="medium", ha="left", x=0.01)
        return DrawnFigure(figure, lines)
    label, finding = next(iter(findings.items()))
    figure.suptitle(f"{fill(finding[:1].upper() + finding[1:], width)}\n{label}".strip(), fontsize="medium")
    return DrawnFigure(figure, list(findings.values()))


def select_snapshots(record: Record, most: int = 5) -> NDArray[np.int64]:
    """Rows of the first snapshot, the last, and some evenly between them."""
    return np.unique(np.linspace(0, len(record.epoch) - 1, most).round().astype(np.int64))


def when(record: Record, row: int) -> str:
    """When a snapshot was taken."""
    epoch = int(record.epoch[row])
    return "before training" if epoch == 0 else f"epoch {epoch}"


def example_groups(record: Record) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Name, colour and members (n,) of each group: right and wrong labels, or just all examples."""
    if not record.has_noise:
        return [("examples", COLOURS[0], np.ones(len(record.index), dtype=np.bool_))]
    what = "value" if record.is_regression else "label"
    return [(f"right {what}", COLOURS[0], ~record.corrupted), (f"wrong {what}", COLOURS[1], record.corrupted)]


def draw_histogram(axes: "Axes", record: Record, values: Numbers, edges: Numbers, *, open_below: bool = False) -> None:
    """Draw the share of examples in each bin, a histogram for each group; the tallest bin fills the height.

    Values (n,) beyond the edges count in the outermost bins. If the histogram is `open_below`, its first bin holds all
    smaller values, and may be cut off so that the others are visible.
    """
    tops = []
    for name, colour, members in example_groups(record):
        inside = np.clip(values[members], edges[0], edges[-1])
        share = np.histogram(inside, edges)[0] / len(record.index)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.45, label=name)
        axes.stairs(share, edges, color=colour, linewidth=1)
        tops.append((float(share[0]), float(share.max()), float(share[1:].max())))
    first, top, inner = (max(column) for column in zip(*tops, strict=True))
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


def style_epoch_axes(axes: "Axes", title: str) -> None:
    """Label axes over epochs."""
    axes.set_xlabel("epoch")
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)


def is_steep(values: Numbers, times: float = 50) -> bool:
    """Whether values are positive and far enough apart for a logarithmic axis."""
    finite: NDArray[Any] = values[np.isfinite(values)]
    return bool(finite.size and finite.min() > 0 and finite.max() > times * finite.min())


def format_number(value: float) -> str:
    """A number with two significant digits."""
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def format_percent(share: float) -> str:
    """A share in per cent, with a decimal where it is small or nearly all."""
    digits = 0 if 0.095 <= share <= 0.905 or share in {0.0, 1.0} else 1
    return f"{100 * share:.{digits}f} %"
