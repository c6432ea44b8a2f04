"""comparison.md, and the figures beside it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from losslab import durable
from losslab.comparison import csvs, tables
from losslab.comparison.reaching import Reach, words
from losslab.terminal import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from losslab.comparison.comparing import Comparison

Section = tuple[str, str]
"""A heading, and what stands below it."""


def write(comparison: "Comparison", folder: Path, more: Sequence[Section] = ()) -> list[Path]:
    """Write the page, its figures and its tables → their paths. A link there is replaced by a file.

    Args:
        comparison: of at least one metric.
        folder: which exists.
        more: further sections of the page.
    """
    figures = {name_of(metric): comparison.figure(metric) for metric in comparison.metrics}
    if any(comparison.histories.names):
        figures["curves.png"] = comparison.curves_figure()
    for name, figure in figures.items():
        durable.put(folder / name, png(figure))
    durable.put(folder / "comparison.md", printable(text(comparison, more)).encode())
    csvs.write(comparison, folder)
    return [folder / name for name in ("comparison.md", "comparison.csv", "runs.csv", *figures)]


def png(figure: "Figure") -> bytes:
    """The file of a figure."""
    content = io.BytesIO()
    figure.savefig(content, metadata={"Software": None})
    return content.getvalue()


def name_of(metric: str) -> str:
    """The file of a metric's figure."""
    return f"{metric.replace('/', '-')}.png"


def text(comparison: "Comparison", more: Sequence[Section] = ()) -> str:
    """The page."""
    sections = [_metric(comparison, metric) for metric in comparison.metrics]
    if comparison.histories.names:
        sections.append(("Curves", "![Curves of all groups](curves.png)"))
    if comparison.reach is not None:
        sections.append((reach_title(comparison.reach), tables.markdown(reach_rows(comparison.reach))))
    sections += more
    if comparison.notes:
        sections.append(("How to read this", "\n".join(f"- {note}" for note in comparison.notes)))
    if comparison.flaws:
        sections.append(("Not counted", "\n".join(f"- {what}: {why}" for what, why in comparison.flaws)))
    return "\n\n".join([f"# {summary(comparison)}", *(f"## {title}\n\n{body}" for title, body in sections)]) + "\n"


def summary(comparison: "Comparison") -> str:
    """How much was found."""
    groups, runs = len(comparison.groups), sum(len(one.runs) for one in comparison.groups)
    return f"{runs} run{'s' * (runs != 1)} in {groups} group{'s' * (groups != 1)}"


def reach_title(found: Reach) -> str:
    """What is to be reached, and why that."""
    chosen = "" if found.asked else ", what the last of the groups reaches on average"
    return f"Time to reach {found.metric}={found.value:g}{chosen}"


def reach_rows(found: Reach) -> list[tuple[str, ...]]:
    """A head, and for each group how many reached it, and the median (and range) of epochs and seconds."""
    head, names = tables.named([one.group for one in found.groups])
    rows = [(name, *words(one)) for name, one in zip(names, found.groups, strict=True)]
    return [(head, "reached by", "epochs: median (range)", "seconds: median (range)"), *rows]


def _metric(comparison: "Comparison", metric: str) -> Section:
    outcome = tables.outcome(comparison.standings[metric])
    figure = f"![{outcome}]({name_of(metric)})"
    return metric, f"{outcome}.\n\n{figure}\n\n{comparison.table_markdown(metric)}"
