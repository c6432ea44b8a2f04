"""Contour plots, and the PNG, CSV and TensorBoard files of explanations. Imports no torch."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from losslab.errors import LabError
from losslab.io import tables
from losslab.io.figures import save_png
from losslab.runs import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger("losslab")
Array = NDArray[np.float64]


def figures_folder(runs: Sequence[RunFolder], output: Path | None) -> Path:
    """Return the folder for figures of these runs: `output`, or if it is None, figures/ in the folder of a single run.

    Raises:
        LabError: there are no runs, there are several runs but no `output`, or a symbolic link leaves a run folder.
    """
    if not runs:
        raise LabError("no runs to explain: name a run folder")
    if output is not None:
        for run in runs:
            run.output(output)
        return output
    if len(runs) != 1:
        raise LabError("figures of several runs need an output folder: name one with --output")
    return runs[0].output(runs[0].figures)


def save_figure(
    figure: "Figure", name: str, runs: Sequence[RunFolder], output: Path | None, findings: Sequence[str]
) -> Path:
    """Write NAME.png to `figures_folder`, replacing an existing file or link, log the findings, and return the path."""
    path = figures_folder(runs, output) / f"{name}.png"
    save_png(figure, path)
    for number, finding in enumerate(findings):
        logger.info("%-11s %s", "" if number else name.removeprefix("dynamics_"), finding)
    return path


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[float]]) -> None:
    """Write the numbers in a figure to a CSV file with 9 significant digits."""
    tables.write_csv(path, columns, ([f"{value:.9g}" for value in row] for row in rows))


def write_tensorboard_images(name: str, figures: Sequence[Path], folder: Path) -> None:
    """Write the PNG files of an explanation to a new TensorBoard event file, which replaces an earlier one."""
    from PIL import Image  # noqa: PLC0415 -- needed once, at the end
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
    from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: PLC0415

    suffix = f".explain-{name}"
    for earlier in folder.glob(f"events.out.tfevents.*{suffix}"):
        earlier.unlink()
    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    for path in figures:
        with Image.open(path) as image:
            width, height = image.size
        png = Summary.Image(encoded_image_string=path.read_bytes(), width=width, height=height, colorspace=4)
        summary = Summary(value=[Summary.Value(tag=f"explain/{path.stem}", image=png)])
        writer.add_event(Event(wall_time=time.time(), step=0, summary=summary))
    writer.close()


def contour_levels(low: float, high: float) -> tuple[Array, bool]:
    """Return contour levels from low to high, and whether they are logarithmic, as in ranges of over a decade."""
    if high <= low:
        return np.array([low - 0.5, low + 0.5]), False
    if low >= 0 and high > 10 * low:
        return np.geomspace(max(low, high / 3e3), high, 12), True
    return np.linspace(low, high, 12), False


def round_levels(low: float, high: float) -> Array:
    """Return about ten evenly spaced round levels that cover the range from low to high."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    return np.asarray(MaxNLocator(11).tick_values(low, high if high > low else low + 1))


def level_formatter(levels: Array) -> Callable[..., str]:
    """Return a formatter with just enough digits to distinguish the levels, and without exponents below 100,000."""
    digits = next((n for n in range(2, 8) if len({f"{level:.{n}g}" for level in levels}) == len(levels)), 8)
    largest = np.abs(levels).max()
    precision = max(digits, len(str(int(largest)))) if largest < 1e5 else digits
    return lambda value, _=None: f"{value:.{precision}g}"


def draw_contours(
    axes: "Axes", x: Array, y: Array, values: Array, unit: str, *, cmap: str = "viridis", levels: Array | None = None
) -> None:
    """Draw values (Y, X) at x (X,) and y (Y,) as filled contours with labelled lines, and a colour bar.

    `unit` is the label of the colour bar. Given levels are linear; None selects the levels of `contour_levels`.
    """
    from matplotlib.colors import LogNorm, Normalize  # noqa: PLC0415

    values, logarithmic = np.ma.masked_invalid(values), False
    if levels is None:
        levels, logarithmic = contour_levels(*((values.min(), values.max()) if values.count() else (0.0, 1.0)))
    norm = (LogNorm if logarithmic else Normalize)(levels[0], levels[-1])
    shades = (np.geomspace if logarithmic else np.linspace)(levels[0], levels[-1], 60)
    filled = axes.contourf(x, y, values, shades, norm=norm, cmap=cmap, extend="both")
    lines = axes.contour(x, y, values, levels, colors="white", linewidths=0.6, alpha=0.75)
    axes.clabel(lines, levels[3::2], fontsize=7, fmt=level_formatter(levels))
    bar_axes = axes.inset_axes((1.03, 0, 0.045, 1))
    bar = axes.figure.colorbar(filled, cax=bar_axes, ticks=levels[::2], format=level_formatter(levels))
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=8)
    bar.set_label(unit, fontsize=8)
