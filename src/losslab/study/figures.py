"""The figure of the race, and the parts that it shares with the figures of the tuning."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, exp, inf, isfinite, isnan, log, log1p, nan
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Self

from losslab.io.figures import GREY, loss_styles, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from losslab.study.answer import Answer
    from losslab.study.race import Outcome

SEED: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 4, "markeredgewidth": 0, "alpha": 0.35}
"""The matplotlib options of the dots of seeds."""
_VERDICTS = {
    "better": "better than",
    "worse": "worse than",
    "equivalent": "equivalent to",
    "undecided": "undecided against",
    "diverged": "diverged",
}
"""The verdicts as parts of a title."""


@dataclass(frozen=True)
class MetricAxis:
    """How values of the metric are drawn: shares in percent, other errors as they are, on logarithmic axes."""

    is_log: bool
    margin: float
    """The margin of equivalence: in points, or on a logarithmic axis a difference of logarithms."""

    @classmethod
    def of(cls, answer: "Answer") -> Self:
        """Return the axis for the metric of a study."""
        by_ratio, margin = answer.race.scale.by_ratio, answer.race.scale.margin
        return cls(by_ratio, log1p(margin) if by_ratio else 100 * margin)

    def place(self, values: Iterable[float | None]) -> list[float]:
        """Return where values are drawn; NaN for those that have no place."""
        unit, lowest = (1, 0.0) if self.is_log else (100, -inf)
        return [nan if value is None or not lowest < value < inf else unit * value for value in values]

    def move(self, place: float, distance: float) -> float:
        """Return the place at a distance from another."""
        return place * exp(distance) if self.is_log else place + distance

    def distance(self, place: float, start: float) -> float:
        """Return the signed distance of a place from another."""
        return log(place / start) if self.is_log else place - start

    def text(self, place: float) -> str:
        """Return a value in words, such as "97.0 %"."""
        return f"{place:.3g}" if self.is_log else f"{place:.1f} %"


class Window:
    """The part of an axis that is drawn."""

    def __init__(self, axis: MetricAxis, center: float, rows: Iterable[Sequence[float]], least: float = 0.0) -> None:
        """Choose a part that contains all values of those rows that are not far off.

        A row is far off if it reaches more than four times as far from the center as the nearer half of the rows, and
        more than 12 margins. The distance `least` on both sides of the center is always in the window.
        """
        self.axis = axis
        distances = [[axis.distance(place, center) for place in row if isfinite(place)] for row in rows]
        reach = sorted(max(map(abs, row)) for row in distances if row)
        half = reach[max(1, ceil(len(reach) / 2) - 1)] if len(reach) > 1 else inf
        near = [row for row in distances if row and max(map(abs, row)) <= 4 * max(half, 3 * axis.margin)]
        values = [-least, 0.0, least, *(value for row in near for value in row)]
        space = 0.07 * (max(values) - min(values)) or axis.margin
        self.low, self.high = axis.move(center, min(values) - space), axis.move(center, max(values) + space)

    def __contains__(self, place: float) -> bool:
        return self.low <= place <= self.high

    def clip(self, place: float) -> float:
        """Return the nearest place in the window."""
        return min(max(place, self.low), self.high)

    def apply(self, axes: "Axes", name: str = "x", prefix: str = "") -> None:
        """Set the limits, the scale and the ticks of an axis, with a prefix before each number."""
        axes.set(**{f"{name}lim": (self.low, self.high)})
        set_scale(axes, name, self.low, self.high, is_log=self.axis.is_log, prefix=prefix)


def set_scale(axes: "Axes", name: str, low: float, high: float, *, is_log: bool, prefix: str = "") -> None:
    """Set the scale of the axis "x" or "y", and plain numbers as its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator  # noqa: PLC0415

    axis = axes.xaxis if name == "x" else axes.yaxis
    axes.set(**{f"{name}scale": "log" if is_log else "linear"})
    if is_log and high > 6 * low:
        axis.set_major_locator(LogLocator(subs=(1,) if high > 50 * low else (1, 2, 5), numticks=7))
    else:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{prefix}{value:g}"))


# The race


def draw_race(answer: "Answer") -> "Figure":
    """Draw all rows, the best first: their seeds and means, and their differences from the reference with verdicts."""
    from matplotlib.lines import Line2D  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    outcomes, axis = answer.outcomes, MetricAxis.of(answer)
    figure = new_figure(8, 1.6 + (0.42 if len(outcomes) <= 12 else 0.34) * len(outcomes), dpi=200)
    left, right = figure.subplots(1, 2, sharey=True)
    label_rows(left, [outcome.row.label for outcome in outcomes], lines=2)
    for axes in (left, right):
        clean(axes, "x")
    colours = [style["color"] for style in group_styles(answer)]
    _draw_means(left, answer, axis, colours)
    _draw_differences(right, answer, axis, colours)
    handles = [
        Line2D([], [], color=GREY, label="a seed", **SEED),
        Line2D([], [], color=GREY, marker="D", markersize=4.5, linewidth=1.8, label="mean, 95 % interval"),
        Line2D([], [], color=GREY, linewidth=4.5, alpha=0.6, label="95 % interval, corrected for early stopping"),
        Patch(color=GREY, alpha=0.25, linewidth=0, label=f"equivalent: within {answer.margin_text}"),
    ]
    if any(outcome.items for outcome in outcomes):
        handles.append(
            Line2D([], [], color="black", linewidth=1, linestyle=":", label="95 % interval over test examples")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    add_title(figure, race_finding(answer))
    return figure


def race_finding(answer: "Answer") -> str:
    """Return what the race found, in one short line."""
    labels = {word: [each.row.label for each in answer.outcomes if each.verdict == word] for word in _VERDICTS}
    found = {verdict: names for verdict, names in labels.items() if names}
    reference, count = short(answer.reference), sum(map(len, found.values()))
    if not found:
        return f"There is nothing to compare with {reference}"
    first, names = next(iter(found.items()))
    others = ", ".join(f"{len(each)} {verdict}" for verdict, each in found.items() if verdict != "better")
    if first != "better" and len(found) > 1:
        return f"None of {count} is shown to be better than {reference}: {others}"
    named = " and ".join(map(short, names))
    if len(names) > 2 or (len(names) == 2 and len(named) > 40):
        named = f"{len(names)} of {count}" if len(found) > 1 else "Both" if count == 2 else f"All {count}"
    verb = "is" if len(names) == 1 else "are"
    text = f"{named} diverged" if first == "diverged" else f"{named} {verb} {_VERDICTS[first]} {reference}"
    difference = next(each.difference for each in answer.outcomes if each.verdict == first)
    if len(names) == 1 and first in {"better", "worse"}:
        text += f" by {answer.amount(difference).partition(' (')[0]}"
    return f"{text}; {others}" if first == "better" and others else text


def _draw_means(axes: "Axes", answer: "Answer", axis: MetricAxis, colours: Sequence[str]) -> None:
    """Draw the seeds of each row below its mean and interval."""
    seeds = [axis.place(outcome.row.values.values()) for outcome in answer.outcomes]
    means = [axis.place(_mean_interval(outcome)) for outcome in answer.outcomes]
    reference = [outcome.row.label for outcome in answer.outcomes].index(answer.reference)
    window = Window(axis, means[reference][0], [[*own, *mean] for own, mean in zip(seeds, means, strict=True)])
    for y, outcome in enumerate(answer.outcomes):
        style = {**SEED, "color": colours[outcome.row.group]}
        inside = [place for place in seeds[y] if place in window]
        axes.plot(inside, [y + 0.25] * len(inside), **style)
        for edge in {window.clip(place) for place in seeds[y] if place not in window}:
            axes.plot([edge], [y + 0.25], **{**style, "marker": "<" if edge == window.low else ">"}, clip_on=False)
        if means[y]:
            colour, face = style["color"], "white" if outcome.row.is_posthoc else style["color"]
            draw_interval(axes, y, means[y], window, axis.text(means[y][0]), colour, face, linewidth=1.8)
    window.apply(axes)
    counts = sorted({len(outcome.row.values) for outcome in answer.outcomes if not outcome.row.diverged})
    counted = f"{counts[0]} seeds each" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    better = "higher" if answer.race.scale.higher_is_better else "lower"
    unit = ", geometric mean" if axis.is_log else ", %"
    axes.set_xlabel(f"test {answer.race.scale.metric}{unit}\n({better} is better; {counted})", fontsize="small")


def _mean_interval(outcome: "Outcome") -> list[float]:
    """Return the mean of a row and its interval; for a single seed its value; nothing for a group that diverged."""
    if outcome.verdict == "diverged":
        return []
    if outcome.estimate is None:
        return [*outcome.row.values.values()][:1] * 3
    return [outcome.estimate.mean, outcome.estimate.low, outcome.estimate.high]


def _draw_differences(axes: "Axes", answer: "Answer", axis: MetricAxis, colours: Sequence[str]) -> None:
    """Draw the difference of each row from the reference, with both intervals, the zone of equivalence and verdicts."""
    zero = 1.0 if axis.is_log else 0.0
    over_seeds = [axis.place(outcome.difference or ()) for outcome in answer.outcomes]
    over_items = [axis.place(outcome.items or ()) for outcome in answer.outcomes]
    rows = [[zero, *seeds, *items] for seeds, items in zip(over_seeds, over_items, strict=True) if seeds]
    window = Window(axis, zero, rows, 1.5 * axis.margin)
    axes.axvspan(axis.move(zero, -axis.margin), axis.move(zero, axis.margin), color=GREY, alpha=0.25, linewidth=0)
    axes.axvline(zero, color="black", linewidth=0.9)
    for y, outcome in enumerate(answer.outcomes):
        ends = [window.clip(end) for end in over_items[y][1:]]
        if len({*ends}) > 1:
            axes.plot(ends, [y + 0.25] * 2, ":", color="black", linewidth=1)
        if over_seeds[y]:
            colour, face = colours[outcome.row.group], "white" if outcome.row.is_posthoc else colours[outcome.row.group]
            text = f"×{over_seeds[y][0]:.3g}" if axis.is_log else f"{over_seeds[y][0]:+.1f}"
            draw_interval(axes, y, over_seeds[y], window, text, colour, face, linewidth=4.5, alpha=0.5)
        decided = outcome.verdict in {"better", "worse", "equivalent", "diverged"}
        axes.annotate(
            "\n".join(wrap(answer.verdict(outcome), 20)), (1, y), xycoords=("axes fraction", "data"), xytext=(7, 0),
            textcoords="offset points", va="center", fontsize="small", color="black" if decided else "#555555",
            fontweight="bold" if decided else "normal", annotation_clip=False,
        )  # fmt: skip
    window.apply(axes, prefix="×" if axis.is_log else "")
    reference = short(answer.reference)
    against = f"as a multiple of {reference}" if axis.is_log else f"minus {reference}, points"
    axes.set_xlabel(f"test {answer.race.scale.metric}\n{against}", fontsize="small")


# Shared parts


def draw_interval(
    axes: "Axes", y: float, interval: Sequence[float], window: Window, text: str, colour: str, face: str, **line: Any
) -> None:
    """Draw a mean on its interval. An end outside the window, or without a place, is an arrow.

    A mean outside is written beside the arrow.
    """
    mean, *ends = interval
    edges = window.low, window.high
    low, high = (edge if isnan(end) else window.clip(end) for end, edge in zip(ends, edges, strict=True))
    if low < high:
        axes.plot([low, high], [y, y], color=colour, solid_capstyle="butt", **line)
    for edge, marker, side in ((window.low, "<", 1), (window.high, ">", -1)):
        is_beyond = mean not in window and window.clip(mean) == edge
        if is_beyond or (edge in (low, high) and edge not in ends):
            axes.plot([edge], [y], marker, color=colour, markersize=6, clip_on=False)
        if is_beyond:
            write_beside_arrow(axes, edge, y, side, text)
    if mean in window:
        axes.plot([mean], [y], "D", color=colour, markerfacecolor=face, markersize=4.5)


def write_beside_arrow(axes: "Axes", edge: float, y: float, side: int, text: str) -> None:
    """Write the value to which an arrow at an edge of the window points, on its right (side 1) or left (side -1)."""
    axes.annotate(
        text, (edge, y), xytext=(8 * side, 0), textcoords="offset points", va="center_baseline",
        ha="left" if side > 0 else "right", fontsize="small",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )  # fmt: skip


def group_styles(answer: "Answer") -> list[dict[str, Any]]:
    """Return the colour and the line style of each group, which depend on its loss."""
    labels = []
    for group in (tuning.group for tuning in answer.tunings):
        loss = next((text[5:] for text in reversed(group.overrides) if text.startswith("loss=")), "")
        others = " ".join(part for part in group.label.split() if part != loss)
        labels.append(", ".join(part for part in (loss, others) if part))
    return loss_styles(labels)


def short(label: str, width: int = 30) -> str:
    """Return the label with at most this many characters, in which matplotlib finds no formulas."""
    text = label if len(label) <= width else f"{label[: width - 1].rstrip()}…"
    return text.replace("$", r"\$")


def label_rows(axes: "Axes", labels: Sequence[str], lines: int = 1) -> None:
    """Label the rows of an axis, the first at the top, each in up to a number of lines."""
    texts = [wrap(label, 28, max_lines=lines, placeholder=" …") if lines > 1 else [label] for label in labels]
    axes.set_yticks(range(len(labels)), ["\n".join(map(short, each)) for each in texts])
    axes.tick_params(axis="y", pad=7, labelsize="small" if max(map(len, labels)) > 20 else "medium")
    axes.set_ylim(len(labels) - 0.4, -0.6)


def clean(axes: "Axes", grid: Any) -> None:
    """Draw thin grid lines along "x" or "both" axes, and no frame. Rows have no ticks."""
    axes.grid(axis=grid, alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"] if grid == "both" else ["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="x", labelsize="small")
    if grid == "x":
        axes.tick_params(axis="y", length=0)


def add_title(figure: "Figure", text: str) -> None:
    """Write a title in one line, as large as it fits, up to 11 points."""
    title = figure.suptitle(text, fontsize=11, fontweight="bold", x=0.01, ha="left")
    share = title.get_window_extent().width / figure.bbox.width
    title.set_fontsize(min(11, 11 * 0.97 / share))
