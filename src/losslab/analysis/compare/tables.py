"""Formatting of estimates, and of the comparison of a metric as a table and as one line."""

from collections.abc import Sequence
from math import inf, isinf
from statistics import median

from losslab.analysis.compare.curves import TimeToReach
from losslab.analysis.compare.differences import Difference, MetricComparison
from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.read import SHARES
from losslab.analysis.compare.statistics import Estimate, GeometricEstimate

_FLOAT_DIGITS = 15
NO_VALUE = "–"


def format_estimate(estimate: Estimate | GeometricEstimate, *, signed: bool = False) -> str:
    """Format a mean ± half width with two significant digits of the half width, or a geometric mean (low to high).

    Set `signed` for a difference or a ratio of groups, which is shown with its sign or with "×". More digits are shown
    if its interval excludes 0 (for a ratio: 1) and rounding would hide this.
    """
    if isinstance(estimate, GeometricEstimate):
        return _format_geometric(estimate, ratio=signed)
    mean, half = estimate.mean, estimate.half_width
    if half == 0:
        return f"{mean:+.3g} ± 0" if signed and mean else f"{mean:.4g} ± 0"
    digits = fewest = 1 - _exponent(half)
    if not estimate.contains(0):
        while digits < fewest + _FLOAT_DIGITS and abs(round(mean, digits)) == round(half, digits):
            digits += 1
    return f"{_format_decimals(mean, digits, half, '+' * signed)} ± {_format_decimals(half, digits, half)}"


def _format_decimals(value: float, decimals: int, half_width: float, sign: str = "") -> str:
    """Format with this number of decimals, or with an exponent if the interval is very wide or very narrow."""
    if half_width < 1e5 and decimals <= _FLOAT_DIGITS:
        return f"{value:{sign}z.{max(0, decimals)}f}"
    rounded = round(value, decimals)
    return f"{rounded:{sign}.{max(0, _exponent(rounded) + decimals)}e}" if rounded else "0"


def _exponent(value: float) -> int:
    return int(f"{value:.1e}".partition("e")[2])


def _format_geometric(estimate: GeometricEstimate, *, ratio: bool) -> str:
    times = "×" if ratio else ""
    if estimate.unbounded:
        return f"{times}{_format_digits(estimate.mean)} (unbounded)"
    digits = 3
    if ratio and not estimate.low <= 1 <= estimate.high:
        nearest = estimate.low if estimate.low > 1 else estimate.high
        while digits < _FLOAT_DIGITS and _format_digits(nearest, digits) == "1":
            digits += 1
    mean, low, high = (_format_digits(value, digits) for value in (estimate.mean, estimate.low, estimate.high))
    return f"{times}{mean} ({low} to {high})"


def _format_digits(value: float, digits: int = 3) -> str:
    """Format with this number of significant digits, without an exponent if that is short."""
    if value >= 1e6 or 0 < value < 1e-5:
        return f"{value:.{digits - 1}e}"
    return f"{float(f'{value:.{digits}g}'):,.{max(10, digits)}g}"


def metric_rows(comparison: MetricComparison) -> list[tuple[str, ...]]:
    """Return a header and a row per group: name, n, mean ± interval, difference from the reference, verdict."""
    head, labels = group_labels(comparison.groups)
    reference = comparison.reference
    name = labels[comparison.groups.index(reference)] if reference is not None else ""
    if len(name) > 14:
        name = "the baseline" if comparison.has_baseline else "the reference"
    against = f"multiple of {name}" if comparison.ratios else f"minus {name}"
    rows: list[tuple[str, ...]] = [(head, "n", comparison.metric, against, "verdict")]
    for label, group in zip(labels, comparison.groups, strict=True):
        count, seeds = len(group.values(comparison.metric)), {run.seed for run in (*group.runs, *group.excluded)}
        n = str(count) if count == len(seeds) else f"{count} of {len(seeds)}"
        estimate, mean = comparison.estimate(group), comparison.mean(group)
        only_mean = NO_VALUE if mean is None else f"{mean:.4g}"
        value = format_estimate(estimate) if estimate else only_mean
        rows.append((label, n, value, *_difference_cells(comparison, group)))
    return [row[:3] for row in rows] if reference is None or len(rows) == 2 else rows


def group_labels(groups: Sequence[Group]) -> tuple[str, list[str]]:
    """Return a column header and a label of each group.

    They are "loss" and "focal" if each name is one value of loss, such as loss=focal; otherwise "runs" and the name.
    """
    keys = {part.partition("=")[0] for group in groups for part in group.name}
    if len(keys) == 1 and all(len(group.name) == 1 for group in groups):
        return keys.pop(), [group.name[0].partition("=")[2] for group in groups]
    return "runs", [group.label for group in groups]


def best_mean(comparison: MetricComparison) -> str:
    """Return what distinguishes a reference that is not a baseline. A group with one seed may have a better mean."""
    best = "highest mean" if comparison.better == "max" else "lowest mean"
    return best if comparison.reference is comparison.groups[0] else f"{best} of the groups with several seeds"


def finding(comparison: MetricComparison, longest_name: int = 1000) -> str:
    """Say in one line which groups are better than the reference or worse, by how much, and the number of seeds.

    Names of groups with more than `longest_name` characters are shortened.
    """
    metric, reference = _words(comparison.metric), comparison.reference
    if reference is None:
        return f"the baseline has no {metric}"
    tested = [each for each in comparison.differences if each.verdict]
    measured = [reference, *(each.group for each in comparison.differences)]
    seeds = seed_counts([each.pairs for each in tested] or [len(group.values(comparison.metric)) for group in measured])
    if tested:
        return f"{_tested_finding(comparison, tested, reference, longest_name)} ({seeds})"
    if len(measured) > 1:
        return f"no difference between {len(measured)} {_plural(measured)} in {metric} can be tested ({seeds})"
    mean, estimate = comparison.mean(reference), comparison.estimate(reference)
    value = format_estimate(estimate) if estimate else f"{mean:.4g}"
    return f"{_short_name(reference, longest_name)} has {metric} {value} ({seeds})"


def _tested_finding(
    comparison: MetricComparison, tested: Sequence[Difference], reference: Group, longest_name: int
) -> str:
    metric, first = _words(comparison.metric), _short_name(reference, longest_name)
    losses = _plural([reference, *(each.group for each in tested)])
    better, worse = ([each for each in tested if each.verdict == word] for word in ("better", "worse"))
    if better or worse:
        best = (better or worse)[0]
        by, second = _size(comparison, best), _short_name(best.group, longest_name)
        if len(tested) == 1:
            return f"{second if better else first} is better than {first if better else second} {by} in {metric}"
        others = _share(len(better or worse), len(tested), f"other {losses}")
        if better:
            verb = "is" if len(better) == 1 else "are"
            return f"{others} {verb} better than {first} in {metric}, {second} {by}"
        return f"{first} is better than {others} in {metric}, than {second} {by}"
    if len({*comparison.levels.values()}) > 1:  # Holm's level rises after each test that rejects: other groups differ
        return (
            f"none of {len(tested)} other {losses} can be told from {first}, the {best_mean(comparison)}, in {metric}"
        )
    pair = f"between {_short_name(tested[0].group, longest_name)} and {first}" if len(tested) == 1 else ""
    family = f"of {len(tested)} other {losses} from {first}" if comparison.has_baseline else ""
    return (
        f"no difference {pair or family or f'between {len(tested) + 1} {losses}'} in {metric} can be told from chance"
    )


def curves_finding(groups: Sequence[Group], reach: TimeToReach | None, longest_name: int = 1000) -> str:
    """Say in one line which groups were the first to reach the value of `reach`, and the number of seeds."""
    losses = _plural(groups)
    if reach is None or not any(each.runs for each in reach.times):
        return f"Curves of {len(groups)} {losses} ({seed_counts([len(group.runs) for group in groups])})"
    epochs = {each.group: median(time.epoch for time in each.runs) for each in reach.times if each.runs}
    seeds, first = seed_counts([len(each.runs) for each in reach.times if each.runs]), min(epochs.values())
    value, median_of = f"{_words(reach.metric)} {reach.value:g}", "median of " * seeds.startswith("n")
    winners = [group for group, epoch in epochs.items() if epoch == first]
    if isinf(first):
        return f"none of {len(epochs)} {losses} reaches {value} with most seeds ({seeds})"
    alone = len(winners) == 1
    who = _short_name(winners[0], longest_name) if alone else _share(len(winners), len(epochs), losses)
    verb = f"{'is' if alone else 'are'} the first to reach"
    if len(winners) == len(epochs):
        verb = "reaches" if alone else "reach"
    return f"{who} {verb} {value} after {first:g} epoch{'s' * (first != 1)} ({median_of}{seeds})"


def seed_counts(counts: Sequence[int]) -> str:
    """Format the numbers of seeds of groups, such as "1 seed", "n = 5 seeds" or "n = 3 to 5 seeds"."""
    low, high = min(counts), max(counts)
    if high <= 1:
        return f"{high} seed{'s' * (high != 1)}"
    return f"n = {high} seeds" if low == high else f"n = {low} to {high} seeds"


def _share(count: int, total: int, noun: str) -> str:
    if count < total:
        return f"{count} of {total} {noun}"
    return f"{'both' if total == 2 else f'all {total}'} {noun}"


def _words(metric: str) -> str:
    return metric.replace("/", " ")


def _plural(groups: Sequence[Group]) -> str:
    return "losses" if group_labels(groups)[0] == "loss" else "groups"


def _short_name(group: Group, longest: int) -> str:
    """Return the name of a group without "loss=" and the sections of keys; of a long name only the values."""
    parts = [part.partition("=") for part in group.name]
    name = " ".join(value if key == "loss" else f"{key.rpartition('.')[2]}={value}" for key, _, value in parts)
    name = name if len(name) <= longest else " ".join(value for _, _, value in parts)
    return name if len(name) <= longest else f"{name[: longest // 2]}…{name[-(longest - 1) // 2 :]}"


def _size(comparison: MetricComparison, difference: Difference) -> str:
    """Format the size of a difference, such as "by 0.8 ± 0.3 points" or "by a factor of 2.1 (1.8 to 2.4)"."""
    interval = difference.interval
    if isinstance(interval, Estimate):
        scale, unit = (100, " points") if comparison.metric in SHARES else (1, "")
        return f"by {format_estimate(Estimate(scale * abs(interval.mean), scale * interval.half_width))}{unit}"
    if interval is None:
        return ""
    ends = (interval.mean, interval.low, interval.high)
    if interval.mean < 1:
        ends = (1 / interval.mean, 1 / interval.high, 1 / interval.low if interval.low else inf)
    return f"by a factor of {format_estimate(GeometricEstimate(*ends))}"


def _difference_cells(comparison: MetricComparison, group: Group) -> tuple[str, str]:
    """Return the cells with the difference from the reference and the verdict."""
    if group is comparison.reference:
        return "", "baseline" if comparison.has_baseline else best_mean(comparison)
    difference = comparison.difference(group)
    if difference is None:
        return NO_VALUE, "no value"
    if difference.mean is None:
        return NO_VALUE, "no seed in common"
    pairs = f" ({difference.pairs} pair{'s' * (difference.pairs > 1)})" if difference.unpaired else ""
    if difference.interval is None:
        mean = f"×{difference.mean:.3g}" if comparison.ratios else f"{difference.mean:+.3g}"
        return f"{mean}{pairs}", "one seed in common: no verdict"
    return f"{format_estimate(difference.interval, signed=True)}{pairs}", difference.verdict
