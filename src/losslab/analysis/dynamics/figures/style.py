"""Colours, titles and number formats of the figures of training dynamics."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

from losslab.analysis.dynamics.record import Record
from losslab.io.figures import COLOURS, loss_styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Records = Mapping[str, Record]
"""The records of runs, by their labels in a figure. Each of several labels begins with the name of the loss."""


class DrawnFigure(NamedTuple):
    """A figure and its findings, one sentence for each run. With several runs, each begins with the run's label."""

    figure: "Figure"
    findings: list[str]


def run_styles(records: Records) -> list[dict[str, Any]]:
    """Return the colour and the line style of each run: those of its loss, if there are several runs."""
    return loss_styles([*records]) if len(records) > 1 else [{"color": COLOURS[0], "linestyle": "-"}]


def group_colours(record: Record, style: dict[str, Any]) -> Sequence[str]:
    """Return the colours of `record.groups`. The only group of a run without noise has the colour of the run."""
    return COLOURS if record.has_noise else [style["color"]]


def add_findings(figure: "Figure", findings: Mapping[str, str]) -> DrawnFigure:
    """Write the findings, by run label, above a figure: a single one as the title, several as one line for each run."""
    width = int(13.5 * figure.get_figwidth())  # in characters
    lines = [f"{label}: {finding}" for label, finding in findings.items()]
    if len(findings) > 1:
        figure.suptitle("\n".join(fill(line, width) for line in lines), fontsize="medium", ha="left", x=0.01)
        return DrawnFigure(figure, lines)
    label, finding = next(iter(findings.items()))
    figure.suptitle(f"{fill(finding[:1].upper() + finding[1:], width)}\n{label}".strip(), fontsize="medium")
    return DrawnFigure(figure, list(findings.values()))


def format_number(value: float) -> str:
    """Format a number with two significant digits."""
    return f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def format_percent(share: float) -> str:
    """Format a share in per cent, with one decimal place if it is close to, but not exactly, 0 or 1."""
    digits = 0 if 0.095 <= share <= 0.905 or share in {0.0, 1.0} else 1
    return f"{100 * share:.{digits}f} %"
