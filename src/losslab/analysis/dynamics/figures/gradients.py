"""Figures of gradients over training: how large those of the examples are, and how they flow through the layers."""

from typing import TYPE_CHECKING, Any

import numpy as np

from losslab.analysis.dynamics.figures.style import (
    DrawnFigure,
    Records,
    add_findings,
    format_number,
    format_percent,
    is_steep,
    style_epoch_axes,
    when,
)
from losslab.analysis.dynamics.metrics import NO_GRADIENT_SHARE, flow_ratio, hardest_share, mispredicted, no_gradient
from losslab.analysis.dynamics.record import Numbers, Record
from losslab.io.figures import COLOURS, GREY, line_styles, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RATIO = 1e4
"""A layer's gradient vanishes (explodes) if it is this many times smaller (larger) than the last layer's."""


def draw_gradients(records: Records) -> DrawnFigure:
    """Draw three panels over epochs: mean norm, share of the hardest tenth, share of examples without gradient.

    With several runs, a line each, the norms are divided by their mean in the first snapshot.
    """
    single = len(records) == 1
    figure = new_figure(12.0, 3.9 if single else 4.3)
    panels = figure.subplots(1, 3)
    for (label, record), style in zip(records.items(), line_styles(), strict=False):
        line: dict[str, Any] = {**style, "marker": "." if len(record.epoch) <= 50 else None, "label": label}
        norms = record.gradient.mean(axis=1, dtype=np.float64)
        panels[0].plot(record.epoch, norms if single else norms / norms[0], **line)
        panels[1].plot(record.epoch, [hardest_share(gradient) for gradient in record.gradient], **line)
        _draw_without_gradient(panels[2], record, line, single=single)
    if not single:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(6, len(records)))
    _label_gradient_panels(list(panels), single=single)
    return add_findings(figure, {label: gradient_finding(record) for label, record in records.items()})


def _draw_without_gradient(axes: "Axes", record: Record, line: dict[str, Any], *, single: bool) -> None:
    without = no_gradient(record)
    if record.is_regression:
        axes.plot(record.epoch, without.mean(axis=1), **line)
        return
    wrong = (without & mispredicted(record)).mean(axis=1)
    if single:
        right = (without & ~mispredicted(record)).mean(axis=1)
        names = ("predicted as their target", "not predicted as their target")
        axes.stackplot(record.epoch, right, wrong, colors=COLOURS[:2], alpha=0.6, labels=names)
        axes.legend(fontsize="small", loc="upper left")
        return
    axes.plot(record.epoch, without.mean(axis=1), **line)
    axes.fill_between(record.epoch, wrong, color=line["color"], alpha=0.25, linewidth=0)


def _label_gradient_panels(panels: list["Axes"], *, single: bool) -> None:
    norm, share, without = panels
    style_epoch_axes(norm, "mean gradient norm with respect to the outputs")
    norm.set_ylabel("mean ‖∂ℓ/∂z‖" if single else "mean ‖∂ℓ/∂z‖ ÷ that before training")
    if is_steep(np.concatenate([line.get_ydata() for line in norm.get_lines()]), 20):
        norm.set_yscale("log")
    style_epoch_axes(share, "share of the gradient from the hardest 10 %")
    share.axhline(0.1, color=GREY, linewidth=1, linestyle=":")
    share.annotate("all gradients equal", (0.98, 0.1), xycoords=("axes fraction", "data"), ha="right", va="top",
                   fontsize="small", color=GREY)  # fmt: skip
    share.set_ylabel("share of Σ ‖∂ℓ/∂z‖")
    share.set_ylim(0, 1.02)
    style_epoch_axes(without, "examples without gradient" if single else "no gradient (shaded: mispredicted)")
    without.set_ylabel(f"share below {NO_GRADIENT_SHARE:g} × the initial mean", fontsize="small")
    without.set_ylim(0, 1.28 if without.get_legend() else 1.02)  # room for the legend
    without.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])


def gradient_finding(record: Record) -> str:
    """How the gradient is shared among the examples at the end."""
    start, end = (hardest_share(record.gradient[row]) for row in (0, -1))
    if np.isnan(end):
        words = "at the end no example has a gradient"
    else:
        shares = f"{format_percent(end)} of the gradient at the end, {format_percent(start)} at the start"
        words = f"the hardest 10 % give {shares}"
    without = no_gradient(record)[-1]
    share = format_percent(float(without.mean()))
    if record.is_regression:
        return f"{words}; {share} of the examples give none"
    wrong = format_percent(float((without & mispredicted(record)[-1]).mean()))
    return f"{words}; {share} give none ({wrong} although mispredicted)"


def draw_layers(records: Records) -> DrawnFigure:
    """Draw a map of layers by snapshots for each run; with several runs relative to each run's last layer."""
    single = len(records) == 1
    maps = {label: _log10(record.flow if single else flow_ratio(record)) for label, record in records.items()}
    finite = np.concatenate([flow[np.isfinite(flow)] for flow in maps.values()] or [np.zeros(1)])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    most_layers = max(len(record.layers) for record in records.values())
    figure = new_figure(7.2 if single else 1.6 + 3.6 * len(records), min(12.0, 1.9 + 0.36 * most_layers))
    panels = figure.subplots(1, len(records), squeeze=False)[0]
    image: Any = None
    panels[0].set_ylabel("layer, inputs first")
    for axes, (label, record) in zip(panels, records.items(), strict=True):
        image = axes.imshow(maps[label], aspect="auto", cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
        _set_layer_ticks(axes, record)
        if not single:
            axes.set_title(label, fontsize="medium")
    unit = "log10 of RMS gradient" if single else "log10 of RMS gradient\n÷ the last layer's"
    figure.colorbar(image, ax=list(panels), label=unit)
    return add_findings(figure, {label: layer_finding(record) for label, record in records.items()})


def _log10(flow: Numbers) -> Numbers:
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.log10(flow.T.astype(np.float64))
    return np.where(np.isfinite(logarithm), logarithm, np.nan)


def _set_layer_ticks(axes: "Axes", record: Record) -> None:
    columns = np.unique(np.linspace(0, len(record.epoch) - 1, 6).round().astype(int))
    axes.set_xticks(columns, ["before" if record.epoch[each] == 0 else str(record.epoch[each]) for each in columns])
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
    for at, verb, bad in ((least, "vanish", ratio[least] < 1 / _RATIO), (most, "explode", ratio[most] > _RATIO)):
        if bad:
            return (
                f"gradients {verb}: layer {record.layers[at[1]]} has {ratio[at]:.1e} times that of the last layer "
                f"({when(record, int(at[0]))})"
            )
    low, high = (format_number(float(ratio[at])) for at in (least, most))
    return f"the gradient reaches all layers: within {low} to {high} times the last layer's"
