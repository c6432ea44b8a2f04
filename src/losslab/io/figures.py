"""Writes PNG figures, and defines the colours and line styles of losses. Imports matplotlib only when needed."""

import re
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from losslab.io import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colour-blind safe palette of Okabe and Ito, without its yellow, which is too light for a line."""
GREY = "#777777"
LINE_STYLES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":", (0, (8, 2)), (0, (1, 3)))
_LOSSES = {
    "#0072B2": ("cross_entropy", "log_cosh", "nce_aul", "weighted_sum"),
    "#D55E00": ("mse", "nfl", "gjs", "sigmoid", "logit_norm"),
    "#009E73": ("focal", "charbonnier", "nce_rce", "logit_penalty", "poisson_nll"),
    "#CC79A7": ("label_smoothing", "cauchy", "aul", "cosine_softmax", "tweedie"),
    "#E69F00": ("mae", "l1", "ldam", "sigmoid_focal", "multi_margin"),
    "#56B4E9": ("gce", "tukey", "balanced_softmax", "nce_mae", "smoothed"),
    "#000000": ("bce", "barron", "rce", "distillation"),
    "#882255": ("huber", "sce", "poly1", "js", "weighted_cross_entropy"),
    "#332288": ("brier", "welsch", "bi_tempered", "class_balanced", "agce"),
    "#8C564B": ("logit_adjusted", "gaussian_nll", "nce_agce", "squared_hinge", "nfl_rce"),
    "#999933": ("rescaled_mse", "quantile", "nce", "geman_mcclure"),
    "#AA4499": ("hinge", "kl_div", "smooth_l1", "expectile"),
}
"""The losses of each colour. Losses that are often compared have different colours.

The colours are those of `COLOURS`, four of Paul Tol's, and a brown. A loss that is not listed gets a colour from the
checksum of its name.
"""


def loss_colour(label: str) -> str:
    """Return the colour of a loss, which is the same in all figures. The name of the loss ends at the first comma."""
    return tuple(_LOSSES)[_colour_and_style(label.partition(", ")[0])[0]]


def loss_styles(labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the matplotlib options `color` and `linestyle` of a line for each label.

    A label is the name of a loss, and after a comma other settings, as in "focal, gamma 2". The hue depends only on the
    loss. Several labels of one loss are shades of its colour, from light to dark, in the order of their settings, which
    sorts numbers by value. Losses of the same colour have different line styles, if there are enough.
    """
    distinct = sorted({*labels}, key=lambda label: (label.partition(", ")[0], _natural_order(label)))
    distinct.sort(key=lambda label: _colour_and_style(label.partition(", ")[0]))
    styles: dict[str, dict[str, Any]] = {}
    taken: set[tuple[int, int]] = set()
    for label in distinct:
        loss = label.partition(", ")[0]
        same = [each for each in distinct if each.partition(", ")[0] == loss]
        rank, (colour, first) = same.index(label), _colour_and_style(loss)
        candidates = [(first + rank + step) % len(LINE_STYLES) for step in range(len(LINE_STYLES))]
        style = next((each for each in candidates if (colour, each) not in taken), candidates[0])
        taken.add((colour, style))
        shade = _shade(loss_colour(loss), rank / (len(same) - 1)) if len(same) > 1 else loss_colour(loss)
        styles[label] = {"color": shade, "linestyle": LINE_STYLES[style]}
    return [styles[label] for label in labels]


def colour_ticks(axis: "Axis", labels: Sequence[str]) -> None:
    """Draw a square in the colour of its loss between each label of an axis and the axes (see `loss_colour`)."""
    axis.set_tick_params(length=7, width=7, pad=3)
    for tick, label in zip(axis.get_major_ticks(), labels, strict=True):
        for line in (tick.tick1line, tick.tick2line):
            line.set_markeredgecolor(loss_colour(label))


def _colour_and_style(loss: str) -> tuple[int, int]:
    """Return the index of the colour of a loss, and the index of its line style."""
    for colour, losses in enumerate(_LOSSES.values()):
        if loss in losses:
            return colour, (colour + losses.index(loss)) % len(LINE_STYLES)
    style, colour = divmod(zlib.crc32(loss.encode("utf-8", "surrogatepass")), len(_LOSSES))
    return colour, style % len(LINE_STYLES)


def _natural_order(text: str) -> list[tuple[float, str]]:
    """Return a key that sorts texts, and the numbers in them by value: "lr 1e-3" is before "lr 0.01"."""
    parts = re.split(r"(?<!\w)(-?(?:\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|inf\b))", text)
    return [(float(part), "") if index % 2 else (0.0, part) for index, part in enumerate(parts)]


def _shade(colour: str, darkness: float) -> str:
    """Return a shade of a colour: mixed with 40 % white at darkness 0, itself at 0.5, and with 35 % black at 1."""
    rgb = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)])
    light, dark = 255 + 0.6 * (rgb - 255), 0.65 * rgb
    if not rgb.any():
        rgb = light / 2  # black has no darker shade
    ends = (light, rgb, 2 * darkness) if darkness < 0.5 else (rgb, dark, 2 * darkness - 1)
    mixed = (1 - ends[2]) * ends[0] + ends[2] * ends[1]
    return "#{:02X}{:02X}{:02X}".format(*mixed.round().astype(int))


def new_figure(width: float, height: float, *, dpi: int = 110, layout: Any = "constrained") -> "Figure":
    """Create a figure without pyplot. `width` and `height` are in inches."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- slow to import, and not needed to train

    return Figure(figsize=(width, height), dpi=dpi, layout=layout)


def set_integer_ticks(axes: "Axes") -> None:
    """Mark at most seven whole numbers on the x axis, such as epochs, also where there is room for fractions."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


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
