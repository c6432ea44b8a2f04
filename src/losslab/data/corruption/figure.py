"""Figures of the corruptions: label transitions and class sizes, or corrupted values over true values."""

from typing import TYPE_CHECKING, Any

from losslab.data.batch import Examples
from losslab.data.corruption.base import TrainingSplit
from losslab.data.corruption.manifest import Manifest
from losslab.data.corruption.value_noise import Heteroscedastic
from losslab.io.figures import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _LIGHT_GREY = *COLOURS[:2], "#CCCCCC"
_MAX_NAMED_CLASSES = 12
"""Names and numbers are left out for more classes."""
_MAX_POINTS = 2_000


def draw(manifest: Manifest, train: TrainingSplit, title: str) -> "Figure":
    """Draw the changes that the manifest records; for regression, together with the values of `train`."""
    last = manifest["faults"][-1]
    heteroscedastic = last["kind"] == Heteroscedastic.kind
    panels = 2 if heteroscedastic or "transitions" in last else 1
    figure = new_figure(5.6 * panels, 4.8)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if "moved" in last:
        _draw_values(axes[0], last, train)
        if heteroscedastic and isinstance(train, Examples):
            _draw_spread(axes[1], last, train)
    else:
        if "transitions" in last:
            _draw_transitions(axes[0], last)
        _draw_class_sizes(axes[-1], manifest["faults"])
    figure.suptitle(title, fontsize="medium")
    return figure


def _draw_transitions(axes: "Axes", record: dict[str, Any]) -> None:
    """Draw, for each pair of true class and given label, the number of examples and their share of the true class."""
    table, names = record["transitions"], list(record["transitions"])
    counts = [[table[true].get(given, 0) for given in names] for true in names]
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    axes.figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(xlabel="given label", ylabel="true class")
    axes.set_title(f"{record['changed']:,} of {record['of']:,} labels are wrong", fontsize="medium")
    if len(names) > _MAX_NAMED_CLASSES:
        return
    axes.set_yticks(range(len(names)), names)
    _label_classes(axes, names)
    size = "x-small" if max(map(max, counts)) < 1000 else "xx-small"
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            colour = "black" if shares[y][x] > 0.5 else "white"
            axes.text(x, y, f"{count:,}" if count else "", ha="center", va="center", color=colour, fontsize=size)


def _draw_class_sizes(axes: "Axes", records: list[dict[str, Any]]) -> None:
    """Draw the number of examples of each class: available, kept for training, and with the class as given label."""
    first, last = records[0], records[-1]
    names = list(first["classes"])
    positions = range(len(names))
    if first["group"] == "imbalance":
        available = list(first["classes_before"].values())
        axes.bar(positions, available, 0.9, color=_LIGHT_GREY, label="available")
    noisy = last["group"] == "noise"
    true = last["classes_before"] if noisy else last["classes"]
    axes.bar(positions, list(true.values()), 0.6, color=_BLUE, label="true classes" if noisy else "kept for training")
    title = f"{_range(true)} examples a class"
    if noisy:
        given = list(last["classes"].values())
        axes.plot(positions, given, "_", color=_ORANGE, ms=14, mew=3, label="given labels")
        title += f", {_range(last['classes'])} as labelled"
    axes.set_title(title, fontsize="medium")
    axes.set(xlabel="class", ylabel="training examples", ylim=(0, 1.2 * axes.dataLim.y1))  # room for the legend
    axes.legend(loc="upper right", fontsize="small", ncols=3)
    if len(names) <= _MAX_NAMED_CLASSES:
        _label_classes(axes, names)


def _range(sizes: dict[str, int]) -> str:
    return f"{min(sizes.values()):,} to {max(sizes.values()):,}"


def _label_classes(axes: "Axes", names: list[str]) -> None:
    """Label the x axis with class names."""
    long = sum(map(len, names)) > 40
    axes.set_xticks(
        range(len(names)), names, rotation=45 if long else 0, ha="right" if long else "center", rotation_mode="anchor"
    )


def _draw_values(axes: "Axes", record: dict[str, Any], train: TrainingSplit) -> None:
    """Draw given values, some of which are wrong, over true values."""
    true, given = (values[:_MAX_POINTS, 0].cpu().tolist() for values in (train.truth, train.target))
    ends = [min(true), max(true)]
    axes.plot(ends, ends, color=_LIGHT_GREY, linewidth=3, zorder=0, label="given = true")
    axes.plot(true, given, ".", color=_BLUE, alpha=0.6, label="a training example")
    axes.set(xlabel="true value", ylabel="given value")
    axes.set_title(f"{record['changed']:,} of {record['of']:,} values are wrong", fontsize="medium")
    axes.legend(fontsize="small")


def _draw_spread(axes: "Axes", record: dict[str, Any], train: Examples) -> None:
    """Draw the noise over the feature on which its standard deviation depends."""
    corruption = Heteroscedastic(**record["parameters"])
    feature = train.inputs.flatten(1)[:_MAX_POINTS, corruption.feature].cpu()
    noise = (train.target - train.truth)[:_MAX_POINTS, 0].cpu()
    two_deviations = 2 * corruption.deviation(train, train.inputs)[:_MAX_POINTS].cpu()
    order = feature.argsort()
    axes.plot(feature.tolist(), noise.tolist(), ".", color=_BLUE, alpha=0.6, label="a training example")
    for sign, label in ((1, "two standard deviations"), (-1, None)):
        axes.plot(feature[order].tolist(), (sign * two_deviations[order]).tolist(), color=_ORANGE, label=label)
    axes.set(xlabel=f"feature {corruption.feature}", ylabel="given − true value")
    axes.set_title("the noise grows with the feature", fontsize="medium")
    axes.legend(fontsize="small")
