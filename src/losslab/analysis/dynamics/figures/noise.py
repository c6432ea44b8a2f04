"""Figure of examples with right and with wrong labels, where the data say which labels are wrong."""

from typing import TYPE_CHECKING

import numpy as np

from losslab.analysis.dynamics.figures.style import (
    DrawnFigure,
    Records,
    add_findings,
    example_groups,
    format_percent,
    is_steep,
    style_epoch_axes,
)
from losslab.analysis.dynamics.metrics import loss_auroc, margin_auroc
from losslab.analysis.dynamics.record import Numbers, Record
from losslab.io.figures import COLOURS, GREY, line_styles, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(records: Records) -> DrawnFigure:
    """Draw detectors of wrong labels, and what wrongly labelled examples are predicted as, over epochs.

    A single run also shows the losses under right and wrong labels. Several runs have a line each.
    """
    noisy = {label: record for label, record in records.items() if record.has_noise}
    single = len(noisy) == 1
    labels = not any(record.is_regression for record in noisy.values())
    figure = new_figure(4.1 * (2 + labels), 3.9)
    panels = list(np.atleast_1d(figure.subplots(1, 2 + labels)))
    for (label, record), style in zip(noisy.items(), line_styles(), strict=False):
        if single:
            _draw_loss_bands(panels[0], record)
            small = "large residuals so far" if record.is_regression else "small area under the margin"
            panels[1].plot(record.epoch, loss_auroc(record), color=COLOURS[0], label="large loss")
            panels[1].plot(record.epoch, margin_auroc(record), "--", color=COLOURS[2], label=small)
        else:
            panels[0].plot(record.epoch, loss_auroc(record), label=label, **style)
            panels[1].plot(record.epoch, margin_auroc(record), label=label, **style)
        if labels:
            colours = (COLOURS[1], COLOURS[2]) if single else (style["color"], style["color"])
            as_wrong, as_truth = predicted_shares(record)
            panels[2].plot(record.epoch, as_wrong, color=colours[0], label="the wrong label" if single else label)
            panels[2].plot(record.epoch, as_truth, "--", color=colours[1], label="the truth" if single else None)
    _label_panels(panels, noisy, single=single)
    return add_findings(figure, {label: finding(record) for label, record in noisy.items()})


def _draw_loss_bands(axes: "Axes", record: Record) -> None:
    for name, colour, members in example_groups(record):
        low, median, high = np.quantile(record.loss[:, members], (0.1, 0.5, 0.9), axis=1)
        axes.fill_between(record.epoch, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(record.epoch, median, color=colour, label=f"{name}: median, 10 % to 90 %")
    if is_steep(np.quantile(record.loss, 0.1, axis=1)) or is_steep(np.median(record.loss, axis=1)):
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(1e-6 * float(record.loss.max()), axes.get_ylim()[0]))
    axes.set_ylabel("loss of an example")


def predicted_shares(record: Record) -> tuple[Numbers, Numbers]:
    """Shares of the wrongly labelled examples that are predicted as their wrong label and as the truth → (L,) each."""
    wrong = record.corrupted
    return (record.margin[:, wrong] > 0).mean(axis=1), (record.truth_margin[:, wrong] > 0).mean(axis=1)


def _label_panels(panels: list["Axes"], noisy: Records, *, single: bool) -> None:
    what = "values" if any(record.is_regression for record in noisy.values()) else "labels"
    if single:
        titles = [f"loss under right and wrong {what}", f"which score detects wrong {what}?"]
        titles.append("examples with a wrong label are predicted as")
    else:
        titles = [f"wrong {what} detected by a large loss", f"wrong {what} detected by a small margin so far"]
        titles.append("predicted as the wrong label (dashed: truth)")
    for axes, title in zip(panels, titles, strict=False):
        style_epoch_axes(axes, title)
        axes.legend(fontsize="small")
    for axes in panels[1:2] if single else panels[:2]:
        axes.set_ylabel("AUROC")
        axes.set_ylim(min(0.45, axes.get_ylim()[0]), 1.02)
        axes.axhline(0.5, color=GREY, linewidth=1, linestyle=":")
    if len(panels) > 2:
        panels[2].set_ylabel("share of wrongly labelled examples")
        panels[2].set_ylim(-0.02, 1.02)


def finding(record: Record) -> str:
    """When the loss detects wrong labels best, and how many are memorised."""
    auroc = loss_auroc(record)
    trained = np.flatnonzero(record.epoch > 0)
    if not trained.size or np.isnan(auroc[trained]).all():
        return "not trained yet"
    best = trained[np.nanargmax(auroc[trained])]
    what = "values" if record.is_regression else "labels"
    words = (
        f"the loss detects the {format_percent(float(record.corrupted.mean()))} wrong {what} "
        f"best in epoch {record.epoch[best]} (AUROC {auroc[best]:.2f}; {auroc[-1]:.2f} at the end)"
    )
    if record.is_regression:
        return words
    memorised, truth = (format_percent(float(share[-1])) for share in predicted_shares(record))
    return f"{words}; {memorised} are memorised, {truth} are predicted as the truth"
