"""The figures of the tuning, and of what one learning rate for all groups would have said."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil, exp, inf, isfinite, isnan, nan, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from losslab.io.figures import new_figure
from losslab.study.figures import (
    SEED,
    MetricAxis,
    Window,
    add_title,
    clean,
    draw_interval,
    group_styles,
    label_rows,
    set_scale,
    short,
    write_beside_arrow,
)
from losslab.study.settings import LEARNING_RATE
from losslab.study.tuning import Tuning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from losslab.study.answer import Answer

_MAX_CURVES = 10
"""With more groups, the curves could not be told apart, and a heat map is drawn."""
_PANELS = 3
"""The number of panels in a row, if each group has one."""
_MAX_DUMBBELLS = 12
"""The number of groups in the figure of one learning rate for all."""
_SAME_RATE = 1.05
"""Best rates count as equal below this ratio: a refined rate may be rounded from both of its neighbours."""
_SHOWN_MARGINS = 40
"""The figure of the tuning shows at least the values that are up to this many margins worse than the best."""


def draw_tuning(answer: "Answer") -> "Figure | None":
    """Draw the metric on the validation data over the tuned parameter; None if nothing was tuned.

    Up to ten groups with one parameter are curves, and more are the rows of a heat map. In all other cases, each group
    has a panel with its first parameter.
    """
    keys = {tuple(result.trial) for tuning in answer.tunings for result in tuning.results}
    if keys == {()}:
        return None
    is_single = len(keys) == 1 and len(next(iter(keys))) == 1
    order, axis = _by_best(answer), MetricAxis.of(answer)
    if is_single and len(order) <= _MAX_CURVES:
        figure = _draw_curves(answer, axis, order)
    elif is_single and all(tuning.is_grid for tuning in order):
        figure = _draw_heat_map(answer, axis, order)
    else:
        figure = _draw_panels(answer, axis, order)
    add_title(figure, tuning_finding(answer))
    return figure


def tuning_finding(answer: "Answer") -> str:
    """Return what the tuning found, in one short line."""
    seeds = _seeds(answer)
    best = {tuning.group.label: tuning.best_result for tuning in _by_best(answer)}
    found = {label: result for label, result in best.items() if result is not None}
    if not found:
        return f"All groups diverged in all trials ({seeds})"
    if all(tuning.is_grid for tuning in answer.tunings):
        rates = {label: next(iter(result.trial.values())) for label, result in found.items()}
        low, high = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
        if rates[high] < _SAME_RATE * rates[low]:
            groups = "All groups" if len(found) == len(best) else f"{len(found)} of {len(best)} groups"
            return f"{groups} have the same best learning rate, {rates[low]:g} ({seeds})"
        factor = rates[high] / rates[low]
        ends = f"{short(low)} {rates[low]:g}, {short(high)} {rates[high]:g}"
        return f"The best learning rates differ by a factor of {factor:.{0 if factor >= 10 else 1}f}: {ends} ({seeds})"
    first, result = next(iter(found.items()))
    trials = max(len(tuning.results) for tuning in answer.tunings)
    (mean,), axis = MetricAxis.of(answer).place([result.mean]), MetricAxis.of(answer)
    return f"{short(first)} has the best of {trials} trials a group, {axis.text(mean)} ({seeds})"


def _draw_curves(answer: "Answer", axis: MetricAxis, order: Sequence[Tuning]) -> "Figure":
    """Draw a curve for each group, and below the curves a row for each with its good range."""
    figure = new_figure(8, 3.4 + 0.27 * len(order), dpi=200)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 0.27 * len(order)])
    styles = _styles_by_label(answer)
    for y, tuning in enumerate(order):
        style = styles[tuning.group.label]
        xs, means = _draw_seeds(top, axis, tuning, style["color"])
        top.plot(xs, means, linewidth=1.5, **style)
        bottom.plot([xs[0], xs[-1]], [y, y], linewidth=1, **style)
        good = tuning.good_range(answer.race.scale.margin, as_ratio=answer.race.scale.by_ratio)
        if good is not None:
            ends = [next(iter(trial.values())) for trial in good]
            bottom.plot(ends, [y, y], color=style["color"], linewidth=7, alpha=0.5, solid_capstyle="round")
        diverged = [x for x, mean in zip(xs, means, strict=True) if isnan(mean)]
        bottom.plot(diverged, [y] * len(diverged), "x", color="black", markersize=6)
        if tuning.best is not None:
            for axes, height in ((top, means[tuning.best]), (bottom, y)):
                axes.plot(xs[tuning.best], height, "D", color=style["color"], markersize=7, markeredgecolor="white")
    clean(top, "both")
    clean(bottom, "x")
    _metric_window(axis, order).apply(top, "y")
    _set_parameter_scale(bottom, [x for tuning in order for x in _first_values(tuning)])
    _write_best(bottom, axis, order)
    top.set_ylabel(_metric_label(answer), fontsize="small")
    bottom.set_xlabel(f"{_parameter_label(order[0])}\n{_explanation(answer, 'bar')}", fontsize="small")
    return figure


def _draw_heat_map(answer: "Answer", axis: MetricAxis, order: Sequence[Tuning]) -> "Figure":
    """Draw a row of cells for each group, a cell for each rate: its colour is the metric, a frame is the good range."""
    from matplotlib.colors import LogNorm, Normalize  # noqa: PLC0415
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    figure = new_figure(8, 1.5 + 0.26 * len(order), dpi=200)
    axes, window = figure.subplots(), _metric_window(axis, order)
    norm = (LogNorm if axis.is_log else Normalize)(window.low, window.high)
    colours = "viridis" if answer.race.scale.higher_is_better else "viridis_r"
    for y, tuning in enumerate(order):
        rates, means = _first_values(tuning), axis.place(each.mean for each in tuning.results)
        ends = _cell_ends(rates)
        mesh = axes.pcolormesh(ends, [y - 0.45, y + 0.45], [means], norm=norm, cmap=colours)
        diverged = [rate for rate, mean in zip(rates, means, strict=True) if isnan(mean)]
        axes.plot(diverged, [y] * len(diverged), "x", color="black", markersize=6)
        good = tuning.good_range(answer.race.scale.margin, as_ratio=answer.race.scale.by_ratio)
        if tuning.best_result is not None and good is not None:
            low, high = (rates.index(trial[LEARNING_RATE]) for trial in good)
            for colour, width in (("white", 3.0), ("black", 1.4)):
                frame = (ends[low], y - 0.42), ends[high + 1] - ends[low], 0.84
                axes.add_patch(Rectangle(*frame, fill=False, edgecolor=colour, linewidth=width))
            axes.plot([_best_rate(tuning)], [y], "D", color="black", markersize=5, markeredgecolor="white")
    bar = figure.colorbar(mesh, ax=axes, location="top", extend="both", aspect=60, pad=0.01)
    bar.set_label(_metric_label(answer), fontsize="small")
    window.apply(bar.ax)
    bar.ax.tick_params(labelsize="small")
    axes.set_ylim(len(order) - 0.5, -0.5)
    _set_parameter_scale(axes, [x for tuning in order for x in _first_values(tuning)])
    axes.tick_params(axis="x", labelsize="small")
    _write_best(axes, axis, order)
    axes.set_xlabel(f"{_parameter_label(order[0])}\n{_explanation(answer, 'frame')}", fontsize="small")
    return figure


def _cell_ends(rates: Sequence[float]) -> list[float]:
    """Return the ends of the cells of increasing rates, at equal ratios to both neighbours."""
    inner = [sqrt(low * high) for low, high in pairwise(rates)]
    return [rates[0] ** 2 / inner[0], *inner, rates[-1] ** 2 / inner[-1]] if inner else [rates[0] / 2, 2 * rates[0]]


def _draw_panels(answer: "Answer", axis: MetricAxis, order: Sequence[Tuning]) -> "Figure":
    """Draw a panel for each group: the metric over its first parameter."""
    rows = ceil(len(order) / _PANELS)
    figure = new_figure(8, 0.8 + 1.9 * rows, dpi=200)
    panels, styles = figure.subplots(rows, _PANELS, squeeze=False, sharey=True), _styles_by_label(answer)
    for axes, tuning in zip(panels.flatten(), order, strict=False):
        colour = styles[tuning.group.label]["color"]
        xs, means = _draw_seeds(axes, axis, tuning, colour)
        axes.plot(xs, means, "_", color=colour, markersize=9)
        if tuning.best is not None:
            axes.plot([xs[tuning.best]], [means[tuning.best]], "D", color=colour, markersize=7, markeredgecolor="black")
        diverged = [x for x, mean in zip(xs, means, strict=True) if isnan(mean)]
        axes.plot(diverged, [0.05] * len(diverged), "x", color="black", transform=axes.get_xaxis_transform())
        clean(axes, "both")
        _metric_window(axis, order).apply(axes, "y")
        _set_parameter_scale(axes, xs)
        if not tuning.results[0].trial:
            axes.set_xticks([])
        axes.set_title(short(tuning.group.label), fontsize="small", loc="left")
        axes.set_xlabel(_parameter_label(tuning), fontsize="small")
    for axes in panels.flatten()[len(order) :]:
        axes.set_axis_off()
    figure.supylabel(_metric_label(answer), fontsize="small")
    figure.supxlabel(_explanation(answer, ""), fontsize="small")
    return figure


def _draw_seeds(axes: "Axes", axis: MetricAxis, tuning: Tuning, colour: str) -> tuple[list[float], list[float]]:
    """Draw the values of all seeds, and return the values of the first parameter and the places of the means."""
    xs = _first_values(tuning)
    for x, result in zip(xs, tuning.results, strict=True):
        axes.plot([x] * len(result.values), axis.place(result.values), color=colour, **SEED)
    return xs, axis.place(result.mean for result in tuning.results)


def _metric_window(axis: MetricAxis, order: Sequence[Tuning]) -> Window:
    """Return the window with the best means, unless they are far off, and the values that are not much worse."""
    bests = axis.place(tuning.best_result.mean for tuning in order if tuning.best_result is not None)
    center = bests[0] if bests else axis.place([1.0])[0]
    around = Window(axis, center, [[best] for best in bests])
    reach = max(
        _SHOWN_MARGINS * axis.margin, *(1.2 * abs(axis.distance(end, center)) for end in (around.low, around.high))
    )
    places = [place for tuning in order for result in tuning.results for place in axis.place(result.values)]
    near = [place for place in places if isfinite(place) and abs(axis.distance(place, center)) <= reach]
    return Window(axis, center, [near])


def _set_parameter_scale(axes: "Axes", xs: Sequence[float]) -> None:
    """Draw a parameter on a logarithmic axis if all values are above 0."""
    set_scale(axes, "x", min(xs), max(xs), is_log=min(xs) > 0)


def _write_best(axes: "Axes", axis: MetricAxis, order: Sequence[Tuning]) -> None:
    """Label the row of each group, and write its best mean at the right."""
    label_rows(axes, [tuning.group.label for tuning in order])
    for y, tuning in enumerate(order):
        best = tuning.best_result
        axes.annotate(
            "diverged" if best is None else axis.text(*axis.place([best.mean])), (1, y), fontsize="small",
            xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points", va="center_baseline",
            annotation_clip=False,
        )  # fmt: skip


def _explanation(answer: "Answer", good_range: str) -> str:
    """Explain the marks. `good_range` says how the good range is drawn."""
    diverged = any(result.mean is None for tuning in answer.tunings for result in tuning.results)
    is_grid = good_range and all(tuning.is_grid for tuning in answer.tunings)
    texts = ["diamond: the best mean", f"{good_range}: neighbours within {answer.margin_text} of it" if is_grid else ""]
    texts.append("cross: a run diverged, here or in the race" if diverged else "")
    return "; ".join(filter(None, texts))


# One learning rate for all


class AtOneRate(NamedTuple):
    """The mean of a group on the validation data at two learning rates, as it is drawn."""

    label: str
    own: float
    """At its own best learning rate."""
    shared: float
    """At the learning rate for all; NaN if it diverged there."""
    is_far: bool
    """Whether it is far off the reference even at its own best rate."""

    def change(self, axis: MetricAxis) -> float:
        """Return how far the two values are apart; infinity if the group diverged at the rate for all."""
        return inf if isnan(self.shared) else abs(axis.distance(self.shared, self.own))


def draw_one_rate(answer: "Answer") -> "Figure | None":
    """Draw the metric of each group at its own best learning rate, and at one learning rate for all.

    None if the trials are no grids of learning rates, or if no other group was tried at a rate of the reference.
    """
    from matplotlib.lines import Line2D  # noqa: PLC0415

    rate, found = at_one_rate(answer)
    if len(found) < 2:
        return None
    axis, styles, tried = MetricAxis.of(answer), _styles_by_label(answer), len(found)
    found = _most_changed(answer, axis, found)
    start = next(each.own for each in found if each.label == answer.reference)
    near = [place for each in found if not each.is_far for place in (each.own, each.shared)]
    figure = new_figure(6, 1.5 + 0.28 * len(found), dpi=200)
    axes, window = figure.subplots(), Window(axis, start, [near])
    label_rows(axes, [each.label for each in found])
    clean(axes, "x")
    window.apply(axes)
    for y, each in enumerate(found):
        colour, text = styles[each.label]["color"], axis.text(each.own)
        if isnan(each.shared) and each.own in window:
            axes.plot([0], [y], "x", color="black", markersize=6, transform=axes.get_yaxis_transform(), clip_on=False)
        elif isnan(each.shared):
            text += ", diverged"
        places = [place for place in (each.own, each.shared) if not isnan(place)]
        interval = each.own, min(places), max(places)
        draw_interval(axes, y, interval, window, text, colour, colour, linewidth=2, alpha=0.6)
        axes.plot([each.shared], [y], "o", color=colour, markerfacecolor="white", markersize=8.5, zorder=1.5)
        edge = window.clip(each.shared)
        if each.own in window and each.shared != edge and not isnan(each.shared):
            write_beside_arrow(axes, edge, y, 1 if edge == window.low else -1, axis.text(each.shared))
    some = f"\nthe {len(found)} of {tried} groups that change most" if len(found) < tried else ""
    axes.set_xlabel(f"{_metric_label(answer)}{some}", fontsize="small")
    marks = {"D": "at its own best rate", "o": f"at {rate:g} for all"}
    marks |= {"x": "diverged there"} if any(isnan(each.shared) for each in found) else {}
    handles = [
        Line2D(
            [], [], color="black", linestyle="", marker=mark, label=text, fillstyle="full" if mark == "D" else "none"
        )
        for mark, text in marks.items()
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, fontsize="small", frameon=False, columnspacing=1
    )
    add_title(figure, one_rate_finding(answer))
    return figure


def at_one_rate(answer: "Answer") -> tuple[float, list[AtOneRate]]:
    """Return a learning rate for all, and the groups that were tried at it, the best first.

    Of the rates at which most groups were tried, it is the best of the reference. There are no groups if the trials of
    the reference are no grid of learning rates, or all of them diverged.
    """
    axis = MetricAxis.of(answer)
    grids = [tuning for tuning in _by_best(answer) if tuning.is_grid and tuning.best_result is not None]
    own = next((tuning for tuning in grids if tuning.group.label == answer.reference), None)
    if own is None:
        return nan, []
    tried = Counter(rate for tuning in grids for rate in _first_values(tuning))
    most = max(tried[rate] for rate in _first_values(own))
    common = tuple(each for each in own.results[: own.ceiling] if tried[each.trial[LEARNING_RATE]] == most)
    common_best = replace(own, results=common, ceiling=None).best_result
    if common_best is None:
        return nan, []
    rate, values = common_best.trial[LEARNING_RATE], []
    for tuning in grids:
        means = dict(zip(_first_values(tuning), axis.place(result.mean for result in tuning.results), strict=True))
        if rate in means:
            values.append((tuning.group.label, means[_best_rate(tuning)], means[rate]))
    start = next(own for label, own, _ in values if label == answer.reference)
    window = Window(axis, start, [[own] for _, own, _ in values])
    return rate, [AtOneRate(*each, is_far=each[1] not in window) for each in values]


def _most_changed(answer: "Answer", axis: MetricAxis, found: Sequence[AtOneRate]) -> list[AtOneRate]:
    """Return the reference and the groups that change most, as many as are drawn, in their order."""
    changes = sorted(found, key=lambda each: (each.label != answer.reference, -each.change(axis)))
    return [each for each in found if each in changes[:_MAX_DUMBBELLS]]


def one_rate_finding(answer: "Answer") -> str:
    """Return in one short line which group one learning rate for all would have changed most."""
    axis, (rate, found) = MetricAxis.of(answer), at_one_rate(answer)
    reference = next(each for each in found if each.label == answer.reference)

    def compare(place: float, start: float) -> tuple[str, str]:
        distance = axis.distance(place, start)
        points = f"{abs(distance):.1f}" if abs(distance) > 0.95 else f"{abs(distance):.2g}"
        size = f"a factor of {exp(abs(distance)):.3g} " if axis.is_log else f"{points} points "
        word = "better than" if (distance > 0) == answer.race.scale.higher_is_better else "worse than"
        return (size, word) if distance else ("", "equal to")

    others = [each for each in found if each is not reference]
    most = max(others, key=lambda each: (each.change(axis) > axis.margin and not each.is_far, each.change(axis)))
    if most.change(axis) <= axis.margin:
        suited = "all" if len(found) == len(answer.tunings) else f"{len(found)} of {len(answer.tunings)} groups"
        return f"One rate, {rate:g}, suits {suited}: none is more than {answer.margin_text} worse there"
    start, name = f"At {rate:g} for all, {short(most.label, 24)}", short(reference.label, 24)
    size, word = compare(most.own, reference.own)
    if isnan(most.shared):
        return f"{start} diverges; at its own, {size}{word} {name}"
    seems = compare(most.shared, reference.shared)
    at_own = size.rstrip() if size and word == seems[1] else f"{size}{word.split()[0]}"
    return f"{start} seems {''.join(seems)} {name}; at its own, {at_own}"


# Values of the trials


def _styles_by_label(answer: "Answer") -> Mapping[str, dict[str, Any]]:
    return dict(zip([tuning.group.label for tuning in answer.tunings], group_styles(answer), strict=True))


def _by_best(answer: "Answer") -> list[Tuning]:
    """Return the tunings by their best means, the best first. Those without one are last."""
    sign = -1 if answer.race.scale.higher_is_better else 1

    def rank(tuning: Tuning) -> float:
        mean = None if tuning.best_result is None else tuning.best_result.mean
        return inf if mean is None else sign * mean

    return sorted(answer.tunings, key=rank)


def _first_values(tuning: Tuning) -> list[float]:
    """Return the value of the first parameter in each trial; 0 if nothing was tuned."""
    return [next(iter(result.trial.values()), 0.0) for result in tuning.results]


def _best_rate(tuning: Tuning) -> float:
    assert tuning.best_result is not None  # noqa: S101 -- for the type checker
    return tuning.best_result.trial[LEARNING_RATE]


def _parameter_label(tuning: Tuning) -> str:
    key = next(iter(tuning.results[0].trial), "nothing tuned")
    return "learning rate" if key == LEARNING_RATE else short(key)


def _metric_label(answer: "Answer") -> str:
    unit, better = (
        "" if answer.race.scale.by_ratio else ", %",
        "higher" if answer.race.scale.higher_is_better else "lower",
    )
    return f"val {answer.race.scale.metric}{unit} ({better} is better; {_seeds(answer)})"


def _seeds(answer: "Answer") -> str:
    counts = sorted({len(result.values) for tuning in answer.tunings for result in tuning.results})
    if counts[-1] == 1:
        return "1 seed"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
