"""Formatting of estimates, and of the comparison of a metric as a table and as a sentence."""

from collections.abc import Sequence

from losslab.analysis.compare.differences import MetricComparison
from losslab.analysis.compare.grouping import Group
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


def describe(comparison: MetricComparison) -> str:
    """Describe the reference and the verdicts on all other groups in one sentence."""
    metric, reference = comparison.metric, comparison.reference
    labels = dict(zip(comparison.groups, group_labels(comparison.groups)[1], strict=True))
    if reference is None:
        return f"the baseline has no {metric}"
    name, sentences = labels[reference], []
    for verdict in ("better", "worse", "not distinguishable", "equal", ""):
        names = [labels[each.group] for each in comparison.differences if each.verdict == verdict]
        if names:
            several = f"{', '.join(names[:-1])} and {names[-1]} are" if len(names) < 6 else f"{len(names)} others are"
            sentences.append(f"{several if names[1:] else f'{names[0]} is'} {verdict or 'without a verdict'}")
    verdicts = "; ".join(sentences) or "there is nothing to compare it with"
    if comparison.has_baseline:
        return f"{metric} relative to {name}: {verdicts}"
    return f"{metric}: {name} has the {best_mean(comparison)}; {verdicts}"


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
