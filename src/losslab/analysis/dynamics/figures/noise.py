"""Clean against mislabelled examples, where the data say which are which."""

from typing import TYPE_CHECKING

import numpy as np

from losslab.analysis.dynamics.figures.style import (
    GREY,
    Drawn,
    Records,
    finished,
    groups,
    new_figure,
    over_epochs,
    percent,
    steep,
)
from losslab.analysis.dynamics.measures import loss_auroc, margin_auroc
from losslab.analysis.dynamics.record import Numbers, Record
from losslab.io.figures import COLOURS, line_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(records: Records) -> Drawn:
    """Of one run: its losses, its detectors and what became of wrong labels; of several the last two, a line each."""
    shown = {label: record for label, record in records.items() if record.has_noise}
    alone = len(shown) == 1
    fates = not any(record.of_values for record in shown.values())
    figure = new_figure(4.1 * (2 + fates), 3.9)
    panels = list(np.atleast_1d(figure.subplots(1, 2 + fates)))
    for (label, record), look in zip(shown.items(), line_styles(), strict=False):
        if alone:
            _bands(panels[0], record)
            _detectors(panels[1], record)
        else:
            panels[0].plot(record.epoch, loss_auroc(record), label=label, **look)
            panels[1].plot(record.epoch, margin_auroc(record), label=label, **look)
        if fates:
            colours = (COLOURS[1], COLOURS[2]) if alone else (look["color"], look["color"])
            _fates(panels[2], record, colours, label, alone=alone)
    _finish(panels, shown, alone=alone)
    return finished(figure, {label: finding(record) for label, record in shown.items()})


def _bands(axes: "Axes", record: Record) -> None:
    for name, colour, members in groups(record):
        low, middle, high = np.quantile(record.loss[:, members], (0.1, 0.5, 0.9), axis=1)
        axes.fill_between(record.epoch, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(record.epoch, middle, color=colour, label=f"{name}: median, 10 % to 90 %")
    if steep(np.quantile(record.loss, 0.1, axis=1)) or steep(np.median(record.loss, axis=1)):
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(1e-6 * float(record.loss.max()), axes.get_ylim()[0]))
    axes.set_ylabel("loss of an example")


def _detectors(axes: "Axes", record: Record) -> None:
    axes.plot(record.epoch, loss_auroc(record), color=COLOURS[0], label="large loss")
    small = "large residuals so far" if record.of_values else "small area under the margin"
    axes.plot(record.epoch, margin_auroc(record), "--", color=COLOURS[2], label=small)


def _fates(axes: "Axes", record: Record, colours: tuple[str, str], label: str, *, alone: bool) -> None:
    learnt, seen_through = fates(record)
    axes.plot(record.epoch, learnt, color=colours[0], label="the wrong label" if alone else label)
    axes.plot(record.epoch, seen_through, "--", color=colours[1], label="the truth" if alone else None)


def fates(record: Record) -> tuple[Numbers, Numbers]:
    """Of the wrongly labelled examples, the share predicted as their wrong label and as the truth → (L,) each."""
    marred = record.corrupted
    return (record.margin[:, marred] > 0).mean(axis=1), (record.truth_margin[:, marred] > 0).mean(axis=1)


def _finish(panels: list["Axes"], shown: Records, *, alone: bool) -> None:
    what = "values" if any(record.of_values for record in shown.values()) else "labels"
    titles = ["loss under right and wrong " + what, f"which score finds wrong {what}?"]
    if not alone:
        titles = [f"a large loss finds wrong {what}", f"a small margin so far finds wrong {what}"]
    if len(panels) > 2:
        titles.append(
            "examples with a wrong label are predicted as" if alone else "wrong label predicted (dashed: truth)"
        )
    for axes, title in zip(panels, titles, strict=True):
        over_epochs(axes, title)
        axes.legend(fontsize="small")
    for axes in panels[1:2] if alone else panels[:2]:
        axes.set_ylabel("AUROC")
        axes.set_ylim(min(0.45, axes.get_ylim()[0]), 1.02)
        axes.axhline(0.5, color=GREY, linewidth=1, linestyle=":")
    if len(panels) > 2:
        panels[2].set_ylabel("share of wrongly labelled examples")
        panels[2].set_ylim(-0.02, 1.02)


def finding(record: Record) -> str:
    """When the loss finds wrong labels best, and how many are learnt by heart."""
    found = loss_auroc(record)
    trained = np.flatnonzero(record.epoch > 0)
    if not trained.size or np.isnan(found[trained]).all():
        return "nothing was learnt yet"
    best = trained[np.nanargmax(found[trained])]
    what = "values" if record.of_values else "labels"
    words = (
        f"the loss finds the {percent(float(record.corrupted.mean()))} wrong {what} "
        f"best in epoch {record.epoch[best]} (AUROC {found[best]:.2f}; {found[-1]:.2f} at the end)"
    )
    if record.of_values:
        return words
    learnt, seen_through = (share[-1] for share in fates(record))
    return f"{words}; {percent(float(learnt))} are learnt by heart, {percent(float(seen_through))} seen through"
