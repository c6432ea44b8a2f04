"""What explanations do with a figure: write it, and say what it found. Imports no torch."""

import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from losslab import durable, links
from losslab.errors import LabError
from losslab.runs import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger("losslab")


def place(runs: Sequence[RunFolder], output: Path | None) -> Path:
    """The folder that figures of these runs go to: `output`, or for one run its own figures/.

    Raises:
        LabError: there is no run, or there are several and no `output`, or a link in the run's folder leads elsewhere.
    """
    if not runs:
        message = "there is nothing to explain: name a run"
        raise LabError(message)
    if output is not None:
        for run in runs:
            links.keep_inside(output, run.path)
        return output
    if len(runs) != 1:
        message = "figures of several runs need a folder of their own: name one with --output"
        raise LabError(message)
    links.keep_inside(runs[0].figures, runs[0].path)
    return runs[0].figures


def keep(figure: "Figure", name: str, runs: Sequence[RunFolder], output: Path | None, findings: Sequence[str]) -> Path:
    """Write NAME.png where figures of these runs go, and log what was found, a line each → its path.

    A figure of the same name that was drawn before is replaced, or a link.
    """
    path = place(runs, output) / f"{name}.png"
    content = io.BytesIO()
    figure.savefig(content, metadata={"Software": None})
    durable.put(path, content.getvalue())
    for place_in_list, finding in enumerate(findings):
        logger.info("%-11s %s", "" if place_in_list else name.removeprefix("dynamics_"), finding)
    return path


def table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[float]]) -> None:
    """Write the numbers of a figure as CSV."""
    lines = [",".join(columns), *(",".join(f"{value:.9g}" for value in row) for row in rows)]
    durable.put(path, ("\n".join(lines) + "\n").encode())
