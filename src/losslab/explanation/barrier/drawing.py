"""The figure of lines between solutions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from losslab.explanation.barrier.line import Line
from losslab.palette import looks
from losslab.targets import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(lines: Sequence[Line], note: str) -> "Figure":
    """A panel for each loss in its own units, and one for the metric, which is the same for all."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.under.loss, []).append(line)
    pairs = {line.name: line for line in reversed(lines)}  # of a pair under two losses, the first
    styles = {name: look | {"linewidth": 1.8} for name, look in zip(reversed(pairs), looks(), strict=False)}
    beside = len(groups) + 1 if len(groups) < 4 else -(-(len(groups) + 1) // 2)
    above = -(-(len(groups) + 1) // beside)
    figure = Figure(figsize=(5.2 * beside, 3.9 * above + 0.5 + 0.22 * len(pairs)), dpi=120, layout="constrained")
    grid = figure.subplots(above, beside, squeeze=False).ravel()
    panels, common = grid[: len(groups)], grid[len(groups)]
    for axes in grid[len(groups) + 1 :]:
        axes.set_visible(False)
    for axes, (loss, own) in zip(panels, groups.items(), strict=True):
        for line in own:
            axes.plot(line.share, line.scores[:, 0], **styles[line.name])
        _finish(axes, f"{loss} loss", f"{loss}: {_said([line.barriers[0] for line in own], '{:.2g}')}")
    scale = 1 if _of_values(lines) else 100
    for name, look in styles.items():
        line = pairs[name]
        common.plot(line.share, scale * line.scores[:, 1], label=f"{name}: barrier {_metric(line)}", **look)
    heights = [scale * line.barriers[1] for line in pairs.values()]
    words = ("mean squared error", "{:.3g}") if _of_values(lines) else ("error rate", "{:.1f} points")
    _finish(common, words[0] + ("" if _of_values(lines) else " (%)"), f"{words[0]}: {_said(heights, words[1])}")
    figure.legend(loc="outside lower center", fontsize=8, ncols=2 if len(pairs) > 2 else 1)
    figure.suptitle(note, fontsize=8)
    return figure


def findings(lines: Sequence[Line]) -> list[str]:
    """The barrier of the pair, or the lowest and the highest of several, a line each, and of how many these are."""
    ordered = sorted(lines, key=lambda line: line.barriers[1])
    ends = ordered if len(ordered) == 1 else [ordered[0], ordered[-1]]
    said = [f"{line.name}: {line.barriers[0]:.2g} of {line.under.loss} loss, {_metric(line)}" for line in ends]
    return said + (
        [f"the lowest and the highest of {len(ordered)}: all are in barrier.csv"] if len(ordered) > 2 else []
    )


def _finish(axes: "Axes", unit: str, title: str) -> None:
    axes.set(xlabel="share of the second solution in the weights", ylabel=unit)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)


def _said(heights: Sequence[float], form: str) -> str:
    low, high = (form.format(height) for height in (min(heights), max(heights)))
    return f"barrier of {high}" if low == high else f"barriers of {low} to {high}"


def _metric(line: Line) -> str:
    height = line.barriers[1]
    return f"{height:.3g} of mean squared error" if _of_values([line]) else f"{100 * height:.1f} points of error rate"


def _of_values(lines: Sequence[Line]) -> bool:
    return lines[0].under.learner.facts.task is Task.REGRESSION
