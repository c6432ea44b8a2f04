"""Writes PNG figures, and defines the colours and line styles of all figures. Imports matplotlib only when needed."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from losslab.io import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colour-blind safe palette of Okabe and Ito, without its yellow, which is too light for a line."""
GREY = "#777777"
LINE_STYLES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":", (0, (1, 3)), (0, (8, 2)))
"""The line styles, one for each colour, so that figures can be read in black and white."""


def line_styles() -> Iterator[dict[str, Any]]:
    """Yield the matplotlib options `color` and `linestyle` for each line of a figure. The first 49 lines differ."""
    for number in count():
        style = LINE_STYLES[(number + number // len(COLOURS)) % len(LINE_STYLES)]
        yield {"color": COLOURS[number % len(COLOURS)], "linestyle": style}


def new_figure(width: float, height: float, *, dpi: int = 110, layout: Any = "constrained") -> "Figure":
    """Create a figure without pyplot. `width` and `height` are in inches."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- slow to import, and not needed to train

    return Figure(figsize=(width, height), dpi=dpi, layout=layout)


def rasterize(figure: "Figure") -> NDArray[np.uint8]:
    """Render a figure as RGBA pixels, uint8 (height, width, 4)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def rasterize_labels(figure: "Figure", texts: Sequence[str]) -> list[NDArray[np.uint8]]:
    """Render a figure once for each text of the label of its y axis, in little more time than once."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    canvas, label = FigureCanvasAgg(figure), figure.axes[0].yaxis.label
    label.set_visible(False)
    canvas.draw()
    label.set_visible(True)
    unlabelled, images = canvas.copy_from_bbox(figure.bbox), []
    for text in texts:
        label.set_text(text)
        canvas.restore_region(unlabelled)
        figure.draw_artist(label)
        images.append(np.array(canvas.buffer_rgba()))
    return images


def encode_png(picture: "Figure | NDArray[np.uint8]") -> bytes:
    """Encode a figure or pixels as PNG, without the version of matplotlib, so that equal figures give equal bytes."""
    content = BytesIO()
    if isinstance(picture, np.ndarray):
        from PIL import Image  # noqa: PLC0415

        Image.fromarray(picture).save(content, format="PNG")
    else:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

        # savefig would draw the figure twice: the first time only for its layout
        FigureCanvasAgg(picture).print_png(content, metadata={"Software": None})
    return content.getvalue()


def save_png(picture: "Figure | NDArray[np.uint8]", path: Path) -> None:
    """Write a figure or pixels to a PNG file, atomically. A symbolic link at that path is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    atomic.write_bytes(path, encode_png(picture))
