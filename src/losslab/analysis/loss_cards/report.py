"""The figure of a loss, and docs/losses.md, which shows the facts and figures of all losses."""

import csv
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import track

from losslab import CONF
from losslab.analysis.loss_cards import card_text
from losslab.analysis.loss_cards.curves import Curves, curves
from losslab.io.figures import LINE_STYLES, loss_colour, loss_styles, new_figure, save_png
from losslab.io.tables import csv_text
from losslab.losses import catalog
from losslab.losses.base import Loss
from losslab.losses.contract.sample_inputs import is_classification

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INTRODUCTION = """\
# The losses

`losslab show --all` generates this page from the facts that each loss declares in its code. The tests search for
counterexamples to every fact (`losslab.losses.contract`), at several values of the hyperparameters. z are the outputs,
p = softmax(z), y is the target class, t the target, K the number of classes. In the figures, the solid line is the loss
as configured; the broad line is cross-entropy (for labels binary cross-entropy, for values squared error).
`losslab show loss=NAME [loss.KEY=VALUE]` prints the facts of one loss and draws its figure.
"""


def draw(name: str, shown: Curves) -> "Figure":
    """Draw the value and the gradient of a loss side by side, with the reference as a broad line."""
    figure = new_figure(9.6, 3.8)
    styles = loss_styles([f"{shown.loss}, {curve.label}" for curve in shown.curves])
    value, gradient = figure.subplots(1, 2)
    for axes, quantity in ((value, "value"), (gradient, "gradient")):
        if shown.reference not in shown.curves:
            broad: dict[str, Any] = {"color": loss_colour(shown.reference.label), "linewidth": 5, "alpha": 0.35}
            axes.plot(shown.x, getattr(shown.reference, quantity), label=shown.reference.label, **broad)
        for index, (curve, style) in enumerate(zip(shown.curves, styles, strict=True)):
            own = {"color": style["color"], "linestyle": LINE_STYLES[index % len(LINE_STYLES)]}
            axes.plot(shown.x, getattr(curve, quantity), linewidth=1.6 if index else 2.4, label=curve.label, **own)
        axes.set_title(f"{name}: {quantity}")
        axes.set_xlabel(shown.axis)
        axes.grid(alpha=0.3)
        _set_limits(axes, [getattr(curve, quantity) for curve in shown.curves])
    value.set_ylabel("loss of the example")
    gradient.set_ylabel("derivative with respect to that output")
    value.legend(fontsize="small")
    return figure


def _set_limits(axes: "Axes", lines: list[list[float]]) -> None:
    """Fit the y axis to these lines, cutting off one extreme value per line and end if they would triple the range."""
    values = sorted(value for line in lines for value in line)
    inner = values[len(lines) : -len(lines)]
    low, high = inner[0], inner[-1]
    if values[-1] - values[0] < 3 * (high - low):
        low, high = values[0], values[-1]
    margin = 0.06 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)


def save(name: str, shown: Curves, folder: Path) -> Path:
    """Draw the figure of a loss, write it to NAME.png in a folder, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    save_png(draw(name, shown), path)
    return path


def table(shown: Curves) -> str:
    """Format the numbers of a figure as CSV with four significant digits; `stale` compares these."""
    columns = [("x", shown.x)]
    for curve in (shown.reference, *shown.curves):
        columns += [(f"{curve.label} value", curve.value), (f"{curve.label} gradient", curve.gradient)]
    rows = zip(*(numbers for _, numbers in columns), strict=True)
    return csv_text([[name for name, _ in columns], *([f"{number:z.4g}" for number in row] for row in rows)])


def summary(name: str) -> str:
    """Return the comment at the top of conf/loss/NAME.yaml."""
    lines = takewhile(lambda line: line.startswith("#"), (CONF / "loss" / f"{name}.yaml").read_text().splitlines())
    return " ".join(line.lstrip("# ") for line in lines if not line.startswith("# @package"))


def write(docs: Path) -> None:
    """Write docs/losses.md, its figures, and the numbers of each figure as CSV."""
    folder = docs / "losses"
    for name in track(catalog.names(), "cards"):
        shown = curves(name, catalog.config(name))
        save(name, shown, folder)
        (folder / f"{name}.csv").write_text(table(shown))
    (docs / "losses.md").write_text(page())


def page() -> str:
    """Return the text of docs/losses.md."""
    losses = {name: catalog.make(name) for name in catalog.names()}
    cards = [card_text.markdown(name, loss, summary(name), "losses") for name, loss in losses.items()]
    return "\n".join([_INTRODUCTION, *_index(losses), *cards])


def _index(losses: dict[str, Loss]) -> Iterator[str]:
    for title, of_classes in (("Of classes and labels", True), ("Of values", False)):
        yield f"**{title}**\n\n| loss | what it is |\n| --- | --- |"
        for name, loss in losses.items():
            if is_classification(loss) is of_classes:
                yield f"| [{name}](#{name}) | {summary(name)} |"
        yield ""


def stale(docs: Path) -> list[str]:
    """Return the outdated files: losses.md if its text differs, CSV files if a number differs by more than 0.1 %."""
    found = [] if (docs / "losses.md").read_text() == page() else ["losses.md"]
    for name in catalog.names():
        file = docs / "losses" / f"{name}.csv"
        if not file.is_file() or not _close(file.read_text(), table(curves(name, catalog.config(name)))):
            found.append(f"losses/{name}.csv")
    return found


def _close(old: str, new: str) -> bool:
    (old_head, *old_rows), (new_head, *new_rows) = ([*csv.reader(text.splitlines())] for text in (old, new))
    if old_head != new_head or len(old_rows) != len(new_rows):
        return False
    pairs = [pair for rows in zip(old_rows, new_rows, strict=True) for pair in zip(*rows, strict=True)]
    return all(abs(float(a) - float(b)) <= 1e-3 * abs(float(b)) + 1e-6 for a, b in pairs)
