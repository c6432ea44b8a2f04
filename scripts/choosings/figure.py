"""The figure of the initial gradients, and its numbers."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from choosings.gradients import Initial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's blue and vermilion, which colour-blind readers can tell apart, and grey for the reference.
_SHORTER, _LONGER, _REFERENCE = "#0072B2", "#D55E00", "#777777"
_PLACES = {"digits": "classes (digits)", "diabetes": "values (diabetes)", "counts": "counts"}
_TICKS = (0.01, 0.1, 1, 10, 100)


def draw(initials: list[Initial]) -> "Figure":
    """A bar for each loss: how long its first gradient is beside the reference's, on a log axis."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    parts = [[one for one in initials if one.place == place] for place in _PLACES]
    figure = Figure(figsize=(9.6, 9.2), dpi=110, layout="constrained")
    figure.suptitle(title(initials), fontsize="large")
    grid = figure.add_gridspec(2, 2, height_ratios=[len(parts[1]), len(parts[2]) + 1.5])
    places = (figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1]))
    for axes, part in zip(places, parts, strict=True):
        _bars(axes, part)
    figure.supxlabel(
        "length of the gradient of the mean loss over all training examples, by all weights (log axis)",
        fontsize="medium",
    )
    return figure


def title(initials: list[Initial]) -> str:
    """The finding."""
    ratios = {one.loss: one.ratio for one in initials if one.place == "digits"}
    longest, shortest = max(ratios, key=ratios.__getitem__), min(ratios, key=ratios.__getitem__)
    times = f"{float(f'{ratios[longest] / ratios[shortest]:.2g}'):,.0f}"
    return (
        f"On the same untrained network and examples the first gradient\n"
        f"of {longest} is about {times} times as long as that of {shortest}"
    )


def _bars(axes: "Axes", part: list[Initial]) -> None:
    names, ratios = [one.loss for one in part], [one.ratio for one in part]
    reference = part[0].reference
    colours = [_REFERENCE if one.loss == reference else _LONGER if one.ratio > 1 else _SHORTER for one in part]
    axes.barh(names, [ratio - 1 for ratio in ratios], left=1, color=colours, height=0.72)
    for row, ratio in enumerate(ratios):
        end, side = (ratio, "left") if ratio >= 1 else (ratio, "right")
        axes.annotate(
            f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}",
            (end, row), xytext=(3 if side == "left" else -3, 0), textcoords="offset points",
            va="center", ha=side, fontsize="x-small",
        )  # fmt: skip
    axes.axvline(1, color=_REFERENCE, linewidth=1.2)
    axes.set_xscale("log")
    axes.set_xlim(min(*ratios, 0.2) / 4, max(max(ratios) * 2.5, 3))
    axes.set_xticks([tick for tick in _TICKS if axes.get_xlim()[0] < tick < axes.get_xlim()[1]])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.get_yticklabels()[names.index(reference)].set_fontweight("bold")
    axes.margins(y=0.01)
    axes.tick_params(axis="y", labelsize="small", length=0)
    axes.set_title(f"{_PLACES[part[0].place]}: times {reference}'s", fontsize="medium")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def save(initials: list[Initial], folder: Path) -> None:
    """Write initial_gradients.png and .csv."""
    draw(initials).savefig(folder / "initial_gradients.png", metadata={"Software": None})
    with (folder / "initial_gradients.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["place", "reference", "loss", "norm", "ratio"])
        for one in initials:
            writer.writerow([one.place, one.reference, one.loss, f"{one.norm:.5g}", f"{one.ratio:.5g}"])


def read(folder: Path) -> list[Initial]:
    """The numbers that `save` wrote."""
    with (folder / "initial_gradients.csv").open(newline="") as file:
        return [
            Initial(row["place"], row["reference"], row["loss"], float(row["norm"]), float(row["ratio"]))
            for row in csv.DictReader(file)
        ]
