"""How large the gradients of the examples are, and how they are shared among them.

The flow of the gradient through the layers over training.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from losslab.analysis.dynamics.figures.style import (
    GREY,
    Drawn,
    Records,
    finished,
    moment,
    new_figure,
    number,
    over_epochs,
    percent,
    steep,
)
from losslab.analysis.dynamics.measures import SILENT, flow_ratio, hardest_share, silent, wrong
from losslab.analysis.dynamics.record import Numbers, Record
from losslab.io.figures import COLOURS, line_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_gradients(records: Records) -> Drawn:
    """Three panels over epochs, a line for each run: mean norm, share of the hardest tenth, examples without gradient.

    The norms of several losses are each divided by their mean in the first look.
    """
    figure = new_figure(12.0, 3.9 if len(records) == 1 else 4.3)
    panels = figure.subplots(1, 3)
    alone = len(records) == 1
    for (label, record), look in zip(records.items(), line_styles(), strict=False):
        epochs, marker = record.epoch, "." if len(record.epoch) <= 50 else None
        line: dict[str, Any] = {**look, "marker": marker, "label": label}
        norms = mean_norms(record)
        panels[0].plot(epochs, norms if alone else norms / norms[0], **line)
        panels[1].plot(epochs, [hardest_share(gradient) for gradient in record.gradient], **line)
        _silence(panels[2], record, line, alone=alone)
    if not alone:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(6, len(records)))
    _finish(list(panels), alone=alone)
    return finished(figure, {label: gradient_finding(record) for label, record in records.items()})


def _silence(axes: "Axes", record: Record, line: dict[str, Any], *, alone: bool) -> None:
    mute = silent(record)
    if record.of_values:
        axes.plot(record.epoch, mute.mean(axis=1), **line)
        return
    missed = (mute & wrong(record)).mean(axis=1)
    if alone:
        names = ("predicted as their target", "not predicted so: lost to the loss")
        axes.stackplot(
            record.epoch, (mute & ~wrong(record)).mean(axis=1), missed, colors=COLOURS[:2], alpha=0.6, labels=names
        )
        axes.legend(fontsize="small", loc="upper left")
        return
    axes.plot(record.epoch, mute.mean(axis=1), **line)
    axes.fill_between(record.epoch, missed, color=line["color"], alpha=0.25, linewidth=0)


def _finish(panels: list["Axes"], *, alone: bool) -> None:
    norm, share, mute = panels
    over_epochs(norm, "mean norm of the gradient by the outputs")
    norm.set_ylabel("mean ‖∂ℓ/∂z‖" if alone else "mean ‖∂ℓ/∂z‖ ÷ that before training")
    if steep(np.concatenate([line.get_ydata() for line in norm.get_lines()]), 20):
        norm.set_yscale("log")
    over_epochs(share, "share of the gradient from the hardest 10 %")
    share.axhline(0.1, color=GREY, linewidth=1, linestyle=":")
    share.annotate("all pull alike", (0.98, 0.1), xycoords=("axes fraction", "data"), ha="right", va="top",
                   fontsize="small", color=GREY)  # fmt: skip
    share.set_ylabel("share of Σ ‖∂ℓ/∂z‖")
    over_epochs(mute, "examples without gradient" if alone else "no gradient (shaded: nor predicted)")
    mute.set_ylabel(f"share below {SILENT:g} × the mean at first", fontsize="small")
    share.set_ylim(0, 1.02)
    mute.set_ylim(0, 1.28 if mute.get_legend() else 1.02)  # room for the legend
    mute.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])


def mean_norms(record: Record) -> Numbers:
    """Of the examples' gradients at each look → (L,)."""
    return np.asarray(record.gradient.mean(axis=1, dtype=np.float64))


def gradient_finding(record: Record) -> str:
    """How the gradient is shared at the end."""
    start, end = (hardest_share(record.gradient[look]) for look in (0, -1))
    mute = silent(record)[-1]
    words = "at the end no example has a gradient" if np.isnan(end) else (
        f"the hardest 10 % give {percent(end)} of the gradient at the end, {percent(start)} at the start"
    )  # fmt: skip
    if record.of_values:
        return f"{words}; {percent(float(mute.mean()))} of the examples give none"
    lost = float((mute & wrong(record)[-1]).mean())
    return f"{words}; {percent(float(mute.mean()))} give none ({percent(lost)} although not predicted)"


if TYPE_CHECKING:
    from matplotlib.axes import Axes

RATIO = 1e4
"""As many times smaller (larger) than the last layer's is vanished (exploded): as for callbacks.gradient_norms."""


def draw_layers(records: Records) -> Drawn:
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
    return finished(figure, {label: layer_finding(record) for label, record in records.items()})


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


def layer_finding(record: Record) -> str:
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
