"""The flow of the gradient through the layers over training."""

from typing import TYPE_CHECKING, Any

import numpy as np

from losslab.dynamics.drawing.style import Drawn, Records, finished, moment, new_figure, number
from losslab.dynamics.measures import flow_ratio
from losslab.dynamics.record import Numbers, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RATIO = 1e4
"""As many times smaller (larger) than the last layer's is vanished (exploded): as for callbacks.gradient_norms."""


def draw(records: Records) -> Drawn:
    """A map of layers by looks for each run; of several runs relative to the last layer, so that they share a scale."""
    alone = len(records) == 1
    maps = {label: _logarithm(record.flow if alone else flow_ratio(record)) for label, record in records.items()}
    finite = np.concatenate([flow[np.isfinite(flow)] for flow in maps.values()] or [np.zeros(1)])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    tallest = max(len(record.layers) for record in records.values())
    figure = new_figure(7.2 if alone else 1.6 + 3.6 * len(records), min(12.0, 1.9 + 0.36 * tallest))
    panels = figure.subplots(1, len(records), squeeze=False)[0]
    image: Any = None
    panels[0].set_ylabel("layer, inputs first")
    for axes, (label, record) in zip(panels, records.items(), strict=True):
        image = axes.imshow(maps[label], aspect="auto", cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
        _ticks(axes, record)
        if not alone:
            axes.set_title(label, fontsize="medium")
    what = "log10 of RMS gradient" if alone else "log10 of RMS gradient\n÷ the last layer's"
    figure.colorbar(image, ax=list(panels), label=what)
    return finished(figure, {label: finding(record) for label, record in records.items()})


def _logarithm(flow: Numbers) -> Numbers:
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.log10(flow.T.astype(np.float64))
    return np.where(np.isfinite(logarithm), logarithm, np.nan)


def _ticks(axes: "Axes", record: Record) -> None:
    places = np.unique(np.linspace(0, len(record.epoch) - 1, 6).round().astype(int))
    axes.set_xticks(
        places, [moment(record, place).removeprefix("epoch ").removesuffix(" training") for place in places]
    )
    axes.set_xlabel("epoch")
    names = record.layers
    rows = np.unique(np.linspace(0, len(names) - 1, min(len(names), 28)).round().astype(int))
    axes.set_yticks(rows, [names[row] for row in rows], fontsize="small")


def finding(record: Record) -> str:
    """Whether gradients vanish or explode on their way to the first layers."""
    ratio = flow_ratio(record)[:, :-1]
    if not np.isfinite(ratio).any():
        return "no gradient reaches the last layer"
    least, most = (np.unravel_index(pick(ratio), ratio.shape) for pick in (np.nanargmin, np.nanargmax))
    for place, word, bad in ((least, "vanish", ratio[least] < 1 / RATIO), (most, "explode", ratio[most] > RATIO)):
        if bad:
            return (
                f"gradients {word}: layer {record.layers[place[1]]} has {ratio[place]:.1e} times that of the last "
                f"layer ({moment(record, int(place[0]))})"
            )
    low, high = (number(float(ratio[place])) for place in (least, most))
    return f"the gradient reaches all layers: within {low} to {high} times the last layer's"
