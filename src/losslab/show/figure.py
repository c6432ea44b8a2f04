"""The figure of a loss: its value, and below it its gradient."""

from pathlib import Path
from typing import TYPE_CHECKING

from losslab.palette import looks
from losslab.show.curves import Curve, Curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREY = "#999999"


def draw(name: str, shown: Curves) -> "Figure":
    """Value and gradient side by side, the reference in grey."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- not needed to print a card

    figure = Figure(figsize=(9.6, 3.8), dpi=110, layout="constrained")
    value, gradient = figure.subplots(1, 2)
    styles = list(zip(shown.curves, looks(), strict=False))
    others = [] if shown.reference in shown.curves else [shown.reference]  # of itself a loss needs no reference
    for axes, quantity in ((value, "value"), (gradient, "gradient")):
        for other in others:
            axes.plot(shown.x, getattr(other, quantity), color=_GREY, linewidth=3, alpha=0.6, label=other.label)
        for curve, look in styles:
            axes.plot(shown.x, getattr(curve, quantity), linewidth=1.8, label=curve.label, **look)
        axes.set_xlabel(shown.axis)
        axes.grid(alpha=0.3)
        _limit(axes, [getattr(curve, quantity) for curve in shown.curves])
    value.set_ylabel("loss of the example")
    gradient.set_ylabel("its derivative by that output")
    value.set_title(f"{name}: value")
    gradient.set_title(f"{name}: gradient")
    value.legend(fontsize="small")
    return figure


def _limit(axes: "Axes", lines: list[list[float]]) -> None:
    """Show all of the loss, but for a single point that is far from all others; the reference may leave the picture."""
    values = sorted(value for line in lines for value in line)
    inner = values[len(lines) : -len(lines)]
    low, high = inner[0], inner[-1]
    if values[-1] - values[0] < 3 * (high - low):
        low, high = values[0], values[-1]
    space = 0.06 * (high - low) or 1.0
    axes.set_ylim(low - space, high + space)


def save(name: str, shown: Curves, folder: Path) -> Path:
    """Write NAME.png into a folder → its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    draw(name, shown).savefig(path, metadata={"Software": None})
    return path


def table(shown: Curves) -> str:
    """The numbers of a figure as CSV, to four digits: what is compared when a page may be stale."""
    columns: list[Curve] = [shown.reference, *shown.curves]
    header = ",".join(["x", *(f"{curve.label} {what}" for curve in columns for what in ("value", "gradient"))])
    rows = [
        ",".join(
            f"{number:z.4g}"
            for number in (x, *(line[i] for curve in columns for line in (curve.value, curve.gradient)))
        )
        for i, x in enumerate(shown.x)
    ]
    return "\n".join([header, *rows]) + "\n"
