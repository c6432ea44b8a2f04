"""Figures over the epochs: gradient norms of examples and of layers, and examples with wrong labels."""

from typing import TYPE_CHECKING, Any

import numpy as np

from losslab.analysis.dynamics.figures.style import (
    DrawnFigure,
    Records,
    add_findings,
    format_number,
    format_percent,
    run_styles,
)
from losslab.analysis.dynamics.record import NO_GRADIENT_SHARE, Numbers, Record, largest_share
from losslab.io.figures import COLOURS, GREY, new_figure, set_integer_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RATIO = 1e4
"""Gradients vanish (explode) if that of a layer is this many times smaller (larger) than that of the last layer."""


def draw_gradients(records: Records) -> DrawnFigure:
    """Draw over epochs the mean gradient norm, the share of the 10 % largest, and how many examples have none.

    If there are several runs, each is a line, and its norms are divided by their mean in the first snapshot.
    """
    single = len(records) == 1
    figure = new_figure(12.0, 3.9 if single else 4.3)
    norm, share, without = figure.subplots(1, 3)
    for (label, record), style in zip(records.items(), run_styles(records), strict=True):
        line: dict[str, Any] = {**style, "marker": "." if len(record.epoch) <= 50 else None, "label": label}
        norms = record.gradient.mean(axis=1, dtype=np.float64)
        norm.plot(record.epoch, norms if single else norms / norms[0], **line)
        share.plot(record.epoch, [largest_share(gradient) for gradient in record.gradient], **line)
        _draw_without_gradient(without, record, line, single=single)
    if not single:
        figure.legend(*norm.get_legend_handles_labels(), loc="outside lower center", ncols=min(6, len(records)))
    _style_epoch_axes(norm, "mean gradient norm with respect to the outputs")
    norm.set_ylabel("mean ‖∂ℓ/∂z‖" if single else "mean ‖∂ℓ/∂z‖ ÷ initial mean")
    if _is_steep(np.concatenate([line.get_ydata() for line in norm.get_lines()]), 20):
        norm.set_yscale("log")
    _style_epoch_axes(share, "share of the 10 % largest gradients")
    share.axhline(0.1, color=GREY, linewidth=1, linestyle=":")
    share.annotate("all gradients equal", (0.98, 0.1), xycoords=("axes fraction", "data"), ha="right", va="top",
                   fontsize="small", color=GREY)  # fmt: skip
    share.set(ylabel="share of Σ ‖∂ℓ/∂z‖", ylim=(0, 1.02))
    _style_epoch_axes(without, "examples without gradient" if single else "without gradient (shaded: misclassified)")
    without.set_ylabel(f"share below {NO_GRADIENT_SHARE:g} × the initial mean", fontsize="small")
    without.set_ylim(0, 1.28 if without.get_legend() else 1.02)  # room for the legend
    without.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    return add_findings(figure, {label: gradient_finding(record) for label, record in records.items()})


def _draw_without_gradient(axes: "Axes", record: Record, line: dict[str, Any], *, single: bool) -> None:
    without = record.no_gradient()
    if single and not record.is_regression:
        wrong = record.mispredicted()
        shares = [(without & members).mean(axis=1) for members in (~wrong, wrong)]
        names = ("predicted as their target", "not predicted as their target")
        axes.stackplot(record.epoch, *shares, colors=COLOURS[:2], alpha=0.6, labels=names)
        axes.legend(fontsize="small", loc="upper left")
        return
    axes.plot(record.epoch, without.mean(axis=1), **line)
    if not record.is_regression:
        shaded = (without & record.mispredicted()).mean(axis=1)
        axes.fill_between(record.epoch, shaded, color=line["color"], alpha=0.25, linewidth=0)


def gradient_finding(record: Record) -> str:
    """Describe how much of the sum of gradient norms comes from the largest ones at the start and end of training."""
    start, end = (largest_share(record.gradient[row]) for row in (0, -1))
    shares = f"{format_percent(end)} of the sum at the end, {format_percent(start)} at the start"
    words = "at the end, no example has a gradient" if np.isnan(end) else f"the 10 % largest gradients make up {shares}"
    without = record.no_gradient()[-1]
    share = f"{format_percent(float(without.mean()))} of the examples have none"
    if record.is_regression:
        return f"{words}; {share}"
    wrong = format_percent(float((without & record.mispredicted()[-1]).mean()))
    return f"{words}; {share} ({wrong} and are misclassified)"


def draw_layers(records: Records) -> DrawnFigure:
    """Draw a heatmap of layers and snapshots per run. Of several runs, gradients are divided by the last layer's."""
    single = len(records) == 1
    maps = {label: _log10(record.flow if single else record.flow_ratio()) for label, record in records.items()}
    finite = np.concatenate([flow[np.isfinite(flow)] for flow in maps.values()])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    most_layers = max(len(record.layers) for record in records.values())
    figure = new_figure(7.2 if single else 1.6 + 3.6 * len(records), min(12.0, 1.9 + 0.36 * most_layers))
    panels = figure.subplots(1, len(records), squeeze=False)[0]
    panels[0].set_ylabel("layer, inputs first")
    for axes, (label, record) in zip(panels, records.items(), strict=True):
        image = axes.imshow(maps[label], aspect="auto", cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
        epochs, names = record.epoch, record.layers
        columns = np.unique(np.linspace(0, len(epochs) - 1, 6).round().astype(int))
        axes.set_xticks(columns, [str(epochs[each] or "before") for each in columns])
        axes.set_xlabel("epoch")
        rows = np.unique(np.linspace(0, len(names) - 1, min(len(names), 28)).round().astype(int))
        axes.set_yticks(rows, [names[row] for row in rows], fontsize="small")
        if not single:
            axes.set_title(label, fontsize="medium")
    unit = "log10 of RMS gradient" if single else "log10 of (RMS gradient\n÷ that of the last layer)"
    figure.colorbar(image, ax=list(panels), label=unit)
    return add_findings(figure, {label: layer_finding(record) for label, record in records.items()})


def _log10(flow: Numbers) -> Numbers:
    valid = np.isfinite(flow) & (flow > 0)
    return np.log10(flow, out=np.full(flow.shape, np.nan), where=valid, dtype=np.float64).T


def layer_finding(record: Record) -> str:
    """Describe whether gradients vanish or explode on their way back to the first layers."""
    ratio = record.flow_ratio()[:, :-1]
    if not np.isfinite(ratio).any():
        return "no gradient reaches the last layer"
    least, most = (np.unravel_index(pick(ratio), ratio.shape) for pick in (np.nanargmin, np.nanargmax))
    for at, verb, bad in ((least, "vanish", ratio[least] < 1 / _RATIO), (most, "explode", ratio[most] > _RATIO)):
        if bad:
            return (
                f"gradients {verb}: that of layer {record.layers[at[1]]} is {ratio[at]:.1e} times that of the last "
                f"layer ({record.time_of(int(at[0]))})"
            )
    low, high = (format_number(float(ratio[at])) for at in (least, most))
    return f"the gradient reaches all layers: it is {low} to {high} times that of the last layer"


def draw_noise(records: Records) -> DrawnFigure:
    """Draw over epochs how well wrong labels are detected, and how wrongly labelled examples are predicted.

    For a single run, the losses with right and with wrong labels are also drawn. Of several runs, each is a line.
    """
    noisy = {label: record for label, record in records.items() if record.has_noise}
    single = len(noisy) == 1
    labels = not any(record.is_regression for record in noisy.values())
    small = "small margins so far" if labels else "large residuals so far"
    figure = new_figure(4.1 * (2 + labels), 3.9)
    panels = list(figure.subplots(1, 2 + labels))
    for (label, record), style in zip(noisy.items(), run_styles(noisy), strict=True):
        if single:
            _draw_loss_bands(panels[0], record)
            panels[1].plot(record.epoch, record.loss_auroc(), color=COLOURS[0], label="large loss")
            panels[1].plot(record.epoch, record.margin_auroc(), "--", color=COLOURS[2], label=small)
        else:
            panels[0].plot(record.epoch, record.loss_auroc(), label=label, **style)
            panels[1].plot(record.epoch, record.margin_auroc(), label=label, **style)
        if labels:
            colours = (COLOURS[1], COLOURS[2]) if single else (style["color"], style["color"])
            as_wrong, as_truth = _predicted_shares(record)
            panels[2].plot(record.epoch, as_wrong, color=colours[0], label="the wrong label" if single else label)
            panels[2].plot(record.epoch, as_truth, "--", color=colours[1], label="the truth" if single else None)
    what = "labels" if labels else "values"
    titles = [f"wrong {what} detected by a large loss", f"wrong {what} detected by {small}"]
    if single:
        titles = [f"loss with right and wrong {what}", f"which score detects wrong {what}?"]
    titles.append(
        "examples with a wrong label are predicted as" if single else "predicted as the wrong label (dashed: truth)"
    )
    for axes, title in zip(panels, titles, strict=False):
        _style_epoch_axes(axes, title)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    for axes in panels[1:2] if single else panels[:2]:
        axes.set(ylabel="AUROC", ylim=(min(0.45, axes.get_ylim()[0]), 1.02))
        axes.axhline(0.5, color=GREY, linewidth=1, linestyle=":")
    if labels:
        panels[2].set(ylabel="share of wrongly labelled examples", ylim=(-0.02, 1.02))
    return add_findings(figure, {label: noise_finding(record) for label, record in noisy.items()})


def _draw_loss_bands(axes: "Axes", record: Record) -> None:
    if not record.has_losses:
        axes.text(0.5, 0.5, "the loss scores a batch as a whole", ha="center", transform=axes.transAxes)
        return
    for (name, members), colour in zip(record.groups.items(), COLOURS, strict=False):
        low, median, high = np.quantile(record.loss[:, members], (0.1, 0.5, 0.9), axis=1)
        axes.fill_between(record.epoch, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(record.epoch, median, color=colour, label=f"{name}: median, 10 % to 90 %")
    if _is_steep(np.quantile(record.loss, 0.1, axis=1)) or _is_steep(np.median(record.loss, axis=1)):
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(1e-6 * float(record.loss.max()), axes.get_ylim()[0]))
    axes.set_ylabel("loss of an example")


def _predicted_shares(record: Record) -> tuple[Numbers, Numbers]:
    """Return the shares (L,) of wrongly labelled examples that are predicted as the given label, and as the truth."""
    wrong = record.corrupted
    return (record.margin[:, wrong] > 0).mean(axis=1), (record.truth_margin[:, wrong] > 0).mean(axis=1)


def noise_finding(record: Record) -> str:
    """Describe when the loss detects wrong labels best, and which shares are memorised or corrected at the end."""
    score, auroc = "loss", record.loss_auroc()
    if not record.has_losses:
        score, auroc = "area under the margin", record.margin_auroc()
    trained = np.flatnonzero(record.epoch > 0)
    if not trained.size or np.isnan(auroc[trained]).all():
        return "not trained yet"
    best = trained[np.nanargmax(auroc[trained])]
    what = "values" if record.is_regression else "labels"
    words = (
        f"the {score} detects the {format_percent(float(record.corrupted.mean()))} wrong {what} "
        f"best in epoch {record.epoch[best]} (AUROC {auroc[best]:.2f}; {auroc[-1]:.2f} at the end)"
    )
    if record.is_regression:
        return words
    memorised, truth = (format_percent(float(share[-1])) for share in _predicted_shares(record))
    return f"{words}; {memorised} of them are memorised, {truth} are predicted as the truth"


def _style_epoch_axes(axes: "Axes", title: str) -> None:
    """Set the title and the grid of axes, and the label and the ticks of the x axis."""
    axes.set_xlabel("epoch")
    set_integer_ticks(axes)
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)


def _is_steep(values: Numbers, times: float = 50) -> bool:
    """Return whether all finite values are positive and the largest is over `times` as large as the smallest."""
    finite: Numbers = values[np.isfinite(values)]
    return bool(finite.size and finite.min() > 0 and finite.max() > times * finite.min())
