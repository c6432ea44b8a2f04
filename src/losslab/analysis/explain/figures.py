"""Figures in TensorBoard. Imports no torch.

Where contours are drawn. Imports no torch.

What explanations do with a figure: write it, and say what it found. Imports no torch.
"""

import io
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from losslab.errors import LabError
from losslab.io import atomic, untrusted
from losslab.runs import RunFolder


def show(name: str, figures: Sequence[Path], folder: Path) -> None:
    """Put pictures into an event file of their own beside a run's, instead of the one that held them before.

    Args:
        name: of the explanation, which ends the name of the file.
        figures: PNG files.
        folder: what TensorBoard is pointed at.
    """
    from PIL import Image  # noqa: PLC0415 -- needed once, at the end
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
    from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: PLC0415

    suffix = f".explain-{name}"
    for before in folder.glob(f"events.out.tfevents.*{suffix}"):
        before.unlink()
    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    for path in figures:
        with Image.open(path) as image:
            width, height = image.size
        picture = Summary.Image(encoded_image_string=path.read_bytes(), width=width, height=height, colorspace=4)
        summary = Summary(value=[Summary.Value(tag=f"explain/{path.stem}", image=picture)])
        writer.add_event(Event(wall_time=time.time(), step=0, summary=summary))
    writer.close()


Numbers = np.ndarray[Any, np.dtype[np.float64]]


def contours(low: float, high: float) -> tuple[Numbers, bool]:
    """Values for contours, and whether their steps are ratios: so they are where a loss spans more than tenfold."""
    if high <= low:
        return np.array([low - 0.5, low + 0.5]), False
    if low >= 0 and high > 10 * low:
        return np.geomspace(max(low, high / 3e3), high, 12), True
    return np.linspace(low, high, 12), False


def even(low: float, high: float) -> Numbers:
    """Round values from below `low` to above `high`, some ten of them."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    return np.asarray(MaxNLocator(11).tick_values(low, high if high > low else low + 1))


def written(levels: Numbers) -> Callable[..., str]:
    """A format of values for labels: with so many digits that no two levels look alike."""
    digits = next((n for n in range(2, 8) if len({f"{level:.{n}g}" for level in levels}) == len(levels)), 8)
    # Below 100 000 without an exponent, however few the digits are.
    places = max(digits, len(str(int(np.abs(levels).max())))) if np.abs(levels).max() < 1e5 else digits
    return lambda value, _=None: f"{value:.{places}g}"


if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger("losslab")


def place(runs: Sequence[RunFolder], output: Path | None) -> Path:
    """The folder that figures of these runs go to: `output`, or for one run its own figures/.

    Raises:
        LabError: there is no run, or there are several and no `output`, or a link in the run's folder leads elsewhere.
    """
    if not runs:
        raise LabError("there is nothing to explain: name a run")
    if output is not None:
        for run in runs:
            untrusted.check_output_path(output, run.path)
        return output
    if len(runs) != 1:
        raise LabError("figures of several runs need a folder of their own: name one with --output")
    untrusted.check_output_path(runs[0].figures, runs[0].path)
    return runs[0].figures


def keep(figure: "Figure", name: str, runs: Sequence[RunFolder], output: Path | None, findings: Sequence[str]) -> Path:
    """Write NAME.png where figures of these runs go, and log what was found, a line each → its path.

    A figure of the same name that was drawn before is replaced, or a link.
    """
    path = place(runs, output) / f"{name}.png"
    content = io.BytesIO()
    figure.savefig(content, metadata={"Software": None})
    atomic.write_bytes(path, content.getvalue())
    for place_in_list, finding in enumerate(findings):
        logger.info("%-11s %s", "" if place_in_list else name.removeprefix("dynamics_"), finding)
    return path


def table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[float]]) -> None:
    """Write the numbers of a figure as CSV."""
    lines = [",".join(columns), *(",".join(f"{value:.9g}" for value in row) for row in rows)]
    atomic.write_bytes(path, ("\n".join(lines) + "\n").encode())
