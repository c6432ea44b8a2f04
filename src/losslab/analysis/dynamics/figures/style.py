"""What the figures of dynamics share: colours, the looks that are shown, scales, and how a finding is written."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from losslab.analysis.dynamics.record import Numbers, Record
from losslab.io.figures import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLEAN, CORRUPTED = COLOURS[0], COLOURS[1]
GREY = "#777777"
PALE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
"""The box behind a word that stands in the middle of a picture."""
Records = Mapping[str, Record]
"""Runs by what they are called in a figure."""


class Drawn(NamedTuple):
    """A figure, and what it shows: a sentence for each run, which begins with the run's name if there are several."""

    figure: "Figure"
    findings: list[str]


def new_figure(width: float, height: float) -> "Figure":
    """A figure of so many inches that lays itself out."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- not needed to train

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def finished(figure: "Figure", findings: Mapping[str, str]) -> Drawn:
    """The figure under its finding: of one run its title, of several a line for each above them all."""
    several = len(findings) > 1
    lines = [f"{label}: {finding}" for label, finding in findings.items()]
    if several:
        figure.suptitle("\n".join(lines), fontsize="medium", ha="left", x=0.01)
    else:
        label, finding = next(iter(findings.items()))
        figure.suptitle(f"{finding[:1].upper()}{finding[1:]}\n{label}".strip(), fontsize="medium")
    return Drawn(figure, lines if several else list(findings.values()))


def shown_looks(record: Record, most: int = 5) -> NDArray[np.int64]:
    """The first look, the last and some evenly between them."""
    return np.unique(np.linspace(0, len(record.epoch) - 1, most).round().astype(np.int64))


def moment(record: Record, look: int) -> str:
    """When a look was."""
    epoch = int(record.epoch[look])
    return "before training" if epoch == 0 else f"epoch {epoch}"


def groups(record: Record) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Name, colour and members (n,) of what is told apart: right and wrong labels, or just all examples."""
    if not record.has_noise:
        return [("examples", CLEAN, np.ones(len(record.index), dtype=np.bool_))]
    what = "value" if record.of_values else "label"
    return [
        (f"right {what}", CLEAN, ~record.corrupted),
        (f"wrong {what}", CORRUPTED, record.corrupted),
    ]


def histogram(axes: "Axes", record: Record, values: Numbers, edges: Numbers, *, open_below: bool = False) -> None:
    """The shares of all examples in each bin, groups over each other; the tallest bin fills the height.

    What lies beyond the edges is counted in the outermost bins.

    Args:
        axes: to draw into.
        record: which says what groups there are.
        values: one for each example (n,).
        edges: of the bins.
        open_below: the first bin holds all that is smaller: it may be cut off, so that the others can be seen.
    """
    tops = []
    for name, colour, members in groups(record):
        inside = np.clip(values[members], edges[0], edges[-1])
        share = np.histogram(inside, edges)[0] / len(record.index)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.45, label=name)
        axes.stairs(share, edges, color=colour, linewidth=1)
        tops.append((float(share[0]), float(share.max()), float(share[1:].max())))
    first, top, inner = (max(column) for column in zip(*tops, strict=True))
    if open_below and first > 2 * inner > 0:
        axes.annotate(
            f" ← {percent(first)} here", (1 / (len(edges) - 1), 0.86), xycoords="axes fraction", fontsize="small",
            color=GREY, va="center", bbox=PALE,
        )  # fmt: skip
        top = inner
    top = top or 1.0
    axes.set_ylim(0, 1.08 * top)
    axes.set_yticks([top], [percent(top)], fontsize="small")
    axes.set_xlim(float(edges[0]), float(edges[-1]))


def label_row(axes: "Axes", text: str) -> None:
    """Say above a row which look it is."""
    axes.set_title(text, fontsize="small", loc="right", pad=2)


def over_epochs(axes: "Axes", title: str) -> None:
    """What every panel over epochs has."""
    axes.set_xlabel("epoch")
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)


def steep(values: Numbers, times: float = 50) -> bool:
    """Whether values are positive and so far apart that a logarithmic axis shows more."""
    finite: NDArray[Any] = values[np.isfinite(values)]
    return bool(finite.size and finite.min() > 0 and finite.max() > times * finite.min())


def number(value: float) -> str:
    """Two digits that count."""
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def percent(share: float) -> str:
    """A share, with a digit more where it is small or nearly all."""
    digits = 0 if 0.095 <= share <= 0.905 or share in {0.0, 1.0} else 1
    return f"{100 * share:.{digits}f} %"
