"""What was made wrong with the training data, in a figure."""

from typing import TYPE_CHECKING, Any

from losslab.data.batch import Examples
from losslab.data.corruption.subset import TrainingSplit
from losslab.data.corruption.value_noise import Heteroscedastic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours, which colour-blind readers can tell apart, and grey for what there was before.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#CCCCCC"
_NAMED = 12
"""Up to so many classes, each has its name and its numbers."""
_POINTS = 2_000
"""So many values are drawn at most."""


def draw(manifest: dict[str, Any], train: TrainingSplit, title: str) -> "Figure":
    """Which labels became which and how many examples each class has; of values, what was given for what is true.

    Args:
        manifest: of the training split.
        train: the split itself, of which values are drawn.
        title: of the run.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 -- only runs with faults draw them

    last = manifest["faults"][-1]
    uneven = last["kind"] == Heteroscedastic.kind
    panels = 2 if uneven or "transitions" in last else 1
    figure = Figure(figsize=(5.6 * panels, 4.8), dpi=110, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if "moved" in last:
        _values(axes[0], last, train)
        if uneven and isinstance(train, Examples):
            _spread(axes[1], last, train)
    else:
        if "transitions" in last:
            _transitions(axes[0], last)
        _sizes(axes[-1], manifest["faults"])
    figure.suptitle(title, fontsize="medium")
    return figure


def _transitions(axes: "Axes", record: dict[str, Any]) -> None:
    """The share of each true class that is given each label, and their numbers."""
    table, names = record["transitions"], list(record["transitions"])
    counts = [[table[true].get(given, 0) for given in names] for true in names]
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    axes.figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set_xlabel("given label")
    axes.set_ylabel("true class")
    axes.set_title(f"{record['changed']:,} of {record['of']:,} labels are wrong", fontsize="medium")
    if len(names) > _NAMED:
        return
    axes.set_yticks(range(len(names)), names)
    _name(axes, names)
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            colour = "black" if shares[y][x] > 0.5 else "white"
            size = "x-small" if max(map(max, counts)) < 1000 else "xx-small"
            axes.text(x, y, f"{count:,}" if count else "", ha="center", va="center", color=colour, fontsize=size)


def _sizes(axes: "Axes", records: list[dict[str, Any]]) -> None:
    """How many examples each class has: of all there are, truly, and by the given labels."""
    first, last = records[0], records[-1]
    names = list(first["classes"])
    places = range(len(names))
    if first["group"] == "imbalance":
        axes.bar(places, list(first["classes_before"].values()), 0.9, color=_GREY, label="all there are")
    noisy = last["group"] == "noise"
    true = last["classes_before"] if noisy else last["classes"]
    axes.bar(places, list(true.values()), 0.6, color=_BLUE, label="true classes" if noisy else "kept for training")
    if noisy:
        axes.plot(places, list(last["classes"].values()), "_", color=_ORANGE, ms=14, mew=3, label="given labels")
    said = f", {_range(last['classes'])} as labelled" if noisy else ""
    axes.set_title(f"{_range(true)} examples a class{said}", fontsize="medium")
    axes.set_xlabel("class")
    axes.set_ylabel("training examples")
    axes.set_ylim(0, 1.2 * axes.dataLim.y1)  # room for the legend
    axes.legend(loc="upper right", fontsize="small", ncols=3)
    if len(names) <= _NAMED:
        _name(axes, names)


def _range(sizes: dict[str, int]) -> str:
    return f"{min(sizes.values()):,} to {max(sizes.values()):,}"


def _name(axes: "Axes", names: list[str]) -> None:
    """Write the names of classes along the x axis."""
    long = sum(map(len, names)) > 40
    axes.set_xticks(
        range(len(names)), names, rotation=45 if long else 0, ha="right" if long else "center", rotation_mode="anchor"
    )


def _values(axes: "Axes", record: dict[str, Any], train: TrainingSplit) -> None:
    """Given values over true ones."""
    true, given = (values[:_POINTS, 0].cpu().tolist() for values in (train.truth, train.target))
    ends = [min(true), max(true)]
    axes.plot(ends, ends, color=_GREY, linewidth=3, zorder=0, label="given = true")
    axes.plot(true, given, ".", color=_BLUE, alpha=0.6, label="a training example")
    axes.set_xlabel("true value")
    axes.set_ylabel("given value")
    axes.set_title(f"{record['changed']:,} of {record['of']:,} values are wrong", fontsize="medium")
    axes.legend(fontsize="small")


def _spread(axes: "Axes", record: dict[str, Any], train: Examples) -> None:
    """What was added, over the feature that its size depends on."""
    law = Heteroscedastic(**record["parameters"])
    feature = train.inputs.flatten(1)[:_POINTS, law.feature].cpu()
    added = (train.target - train.truth)[:_POINTS, 0].cpu()
    twice = 2 * law.deviation(train, train.inputs)[:_POINTS].cpu()
    order = feature.argsort()
    axes.plot(feature.tolist(), added.tolist(), ".", color=_BLUE, alpha=0.6, label="a training example")
    for sign, label in ((1, "two standard deviations"), (-1, None)):
        axes.plot(feature[order].tolist(), (sign * twice[order]).tolist(), color=_ORANGE, label=label)
    axes.set_xlabel(f"feature {law.feature}")
    axes.set_ylabel("given − true value")
    axes.set_title("the noise grows with the feature", fontsize="medium")
    axes.legend(fontsize="small")
