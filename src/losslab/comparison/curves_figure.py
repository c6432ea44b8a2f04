"""The figure of curves: a line for each group, a band for its seeds."""

from collections.abc import Iterable, Sequence
from math import inf, log10
from textwrap import shorten
from typing import TYPE_CHECKING

from losslab.comparison.curves import Curve, Histories, is_loss
from losslab.comparison.grouping import Group
from losslab.comparison.reaching import Reach
from losslab.comparison.tables import named
from losslab.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (*COLOURS, "#B8A800")
_OTHERS = "#BBBBBB"
_TICKS = 7


def draw(groups: Sequence[Group], found: Histories, reach: Reach | None = None) -> "Figure":
    """A panel for each quantity; losses relative to where each run started, as they share no unit.

    Args:
        groups: the best first: the first eight have colours, the others are grey.
        found: their histories.
        reach: drawn as a line in the panel of its metric.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    panels = [name for name in found.names if any(_curve(found, one, name) for one in groups)]
    lines = -(-len(panels) // 2)
    _, names = named(groups)
    columns = 2 if max(map(len, names), default=0) > 24 else 4
    legend = -(-min(len(groups), len(_COLOURS) + 1) // columns)
    figure = Figure(figsize=(8, 2.7 * max(1, lines) + 0.22 * legend + 0.35), dpi=200, layout="constrained")
    axes = figure.subplots(max(1, lines), min(2, max(1, len(panels))), squeeze=False).flatten()
    span = _span([epoch for name in panels for one in groups for epoch in _epochs(found, one, name)])
    for one, name in zip(axes, panels, strict=False):
        _panel(one, groups, found, name, reach if reach is not None and reach.metric == name else None)
        one.set_xlim(*span)
    for one in axes[len(panels) :]:
        one.set_visible(False)
    handles = _handles(groups, names)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize="small", frameon=False)
    figure.suptitle(
        "Mean over seeds; the band is from the lowest to the highest seed", fontsize="medium", x=0.01, ha="left"
    )
    return figure


def _curve(found: Histories, group: Group, name: str) -> Curve | None:
    return found.curve(group, name, relative=is_loss(name))


def _epochs(found: Histories, group: Group, name: str) -> Sequence[int]:
    curve = _curve(found, group, name)
    return curve.epochs if curve is not None else ()


def _span(epochs: Sequence[int]) -> tuple[float, float]:
    """What all panels show: all epochs of any, and a little beside them."""
    first, last = min(epochs, default=0), max(epochs, default=1)
    beside = 0.03 * (last - first) or 0.5
    return first - beside, last + beside


def ticks(epochs: Iterable[int]) -> list[int]:
    """Those of these epochs that are marked: all, if they are few, else round ones, else every so many."""
    known = sorted({*epochs})
    if len(known) <= _TICKS:
        return known
    for step in (factor * 10**power for power in range(16) for factor in (1, 2, 5)):
        round_ones = [epoch for epoch in known if epoch % step == 0]
        if len(round_ones) <= _TICKS:
            break
    return round_ones if len(round_ones) > 2 else known[:: -(-len(known) // _TICKS)]


def _panel(axes: "Axes", groups: Sequence[Group], found: Histories, name: str, reach: Reach | None) -> None:
    drawn = [(place, curve) for place, one in enumerate(groups) if (curve := _curve(found, one, name)) is not None]
    for place, curve in reversed(drawn):  # the best on top
        colour = _COLOURS[place] if place < len(_COLOURS) else _OTHERS
        marker = "." if len(curve.epochs) <= 30 else None
        axes.plot(curve.epochs, curve.mean, color=colour, linewidth=1.4, marker=marker, markersize=4)
        if place < len(_COLOURS) and curve.seeds > 1:
            axes.fill_between(curve.epochs, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    lows = [value for _, curve in drawn for value in curve.low]
    if min(lows) > 0 and max(value for _, curve in drawn for value in curve.high) > 50 * min(lows):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    if reach is not None:
        _line(axes, reach)
    left_out = sum(bool(found.curve(one, name)) for one in groups) - len(drawn) if is_loss(name) else 0
    note = f"\n({left_out} that start at or below 0 left out)" if left_out else ""
    own = "each its own loss, relative to its first value" if is_loss(name) else ""
    axes.set_title(f"{name}" + (f": {own}{note}" if own else ""), fontsize="small", loc="left")
    axes.set_xlabel("Epochs", fontsize="small")
    axes.set_xticks(ticks(epoch for _, curve in drawn for epoch in curve.epochs))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize="small")


def _line(axes: "Axes", reach: Reach) -> None:
    """The value to reach, named beside the panel, where no curve is; without its line where that would squash them."""
    scale = log10 if axes.get_yscale() == "log" else float
    low, high = map(scale, axes.get_ylim())
    height = (scale(reach.value) - low) / (high - low) if scale is float or reach.value > 0 else -inf
    near = -1 <= height <= 2
    if near:
        axes.axhline(reach.value, color="black", linewidth=0.9, linestyle=":")
    outside = "" if near else "\n(above)" if height > 0 else "\n(below)"
    at, unit = (reach.value, "data") if near else (float(height > 0), "axes fraction")
    axes.annotate(
        f"to reach:\n{reach.value:g}{outside}", (1, at), xycoords=("axes fraction", unit), xytext=(3, 0),
        textcoords="offset points", ha="left", va="center", fontsize="x-small", annotation_clip=False,
    )  # fmt: skip


def _handles(groups: Sequence[Group], names: Sequence[str]) -> list[object]:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    handles: list[object] = [
        Line2D([], [], color=colour, label=shorten(name, 60)) for colour, name in zip(_COLOURS, names, strict=False)
    ]
    others = len(groups) - len(_COLOURS)
    return [*handles, Line2D([], [], color=_OTHERS, label=f"{others} others")] if others > 0 else handles
