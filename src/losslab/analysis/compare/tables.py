"""Numbers as they are written.

Where groups stand in a metric, as rows of words.
"""

from collections.abc import Sequence

from losslab.analysis.compare.differences import Difference, MetricComparison
from losslab.analysis.compare.grouping import Group
from losslab.analysis.compare.statistics import Estimate, GeometricEstimate
from losslab.io.metric_names import direction

_MOST = 15
"""Digits that a float has."""


def format_estimate(found: Estimate | GeometricEstimate, *, signed: bool = False) -> str:
    """A mean ± the half of its interval, both to the two leading digits of the half; of a factor its two ends.

    More digits where the interval leaves out 0 (of ratios 1) and would not seem to.

    Args:
        found: of one group, or of the difference or ratio of two.
        signed: whether it is of two.
    """
    if isinstance(found, GeometricEstimate):
        return _factor(found, ratio=signed)
    if found.half == 0:
        return f"{found.mean:+.3g} ± 0" if signed and found.mean else f"{found.mean:.4g} ± 0"
    digits = least = 1 - _exponent(found.half)
    while (
        found.distinguishable and digits < least + _MOST and abs(round(found.mean, digits)) == round(found.half, digits)
    ):
        digits += 1
    return f"{_rounded(found.mean, digits, found.half, sign='+' * signed)} ± {_rounded(found.half, digits, found.half)}"


def _rounded(value: float, digits: int, half: float, sign: str = "") -> str:
    """To so many digits behind the point; of very large and very small intervals with an exponent."""
    if half < 1e5 and digits <= _MOST:
        return f"{value:{sign}z.{max(0, digits)}f}"
    near = round(value, digits)
    return f"{near:{sign}.{max(0, _exponent(near) + digits)}e}" if near else "0"


def _exponent(value: float) -> int:
    return int(f"{value:.1e}".partition("e")[2])


def _factor(found: GeometricEstimate, *, ratio: bool) -> str:
    if found.unbounded:
        return f"{'×' if ratio else ''}{_short(found.mean)} (unbounded)"
    digits, near = 3, found.low if found.low > 1 else found.high
    while ratio and not found.low <= 1 <= found.high and digits < _MOST and _short(near, digits) == "1":
        digits += 1
    mean, low, high = (_short(value, digits) for value in (found.mean, found.low, found.high))
    return f"{'×' if ratio else ''}{mean} ({low} to {high})"


def _short(value: float, digits: int = 3) -> str:
    """So many leading digits, as a plain number where that is short."""
    if value >= 1e6 or 0 < value < 1e-5:
        return f"{value:.{digits - 1}e}"
    return f"{float(f'{value:.{digits}g}'):,.{max(10, digits)}g}"


NOTHING = "–"


def metric_rows(standing: MetricComparison) -> list[tuple[str, ...]]:
    """A head, and a row for each group: its name, n, mean ± interval, difference from the reference, verdict."""
    head, names = group_labels(standing.groups)
    name = names[standing.groups.index(standing.reference)] if standing.reference is not None else ""
    short = name if len(name) <= 14 else "the baseline" if standing.chosen else "the first"
    against = f"multiple of {short}" if standing.ratios else f"minus {short}"
    table: list[tuple[str, ...]] = [(head, "n", standing.metric, against, "verdict")]
    for name, one in zip(names, standing.groups, strict=True):
        table.append((name, count(one, standing.metric), mean(standing, one), *_against(standing, one)))
    alone = standing.reference is None or len(table) == 2
    return [row[:3] for row in table] if alone else table


def group_labels(groups: Sequence[Group]) -> tuple[str, list[str]]:
    """What groups are called below a common head: "loss" and "focal", where all are called loss=...; else "runs"."""
    keys = {part.partition("=")[0] for one in groups for part in one.name}
    if len(keys) == 1 and all(len(one.name) == 1 for one in groups):
        return keys.pop(), [one.name[0].partition("=")[2] for one in groups]
    return "runs", [one.label for one in groups]


def count(group: Group, metric: str) -> str:
    """How many seeds have a value, and of how many if not all have."""
    found = len(group.values(metric))
    return str(found) if found == group.size else f"{found} of {group.size}"


def mean(standing: MetricComparison, group: Group) -> str:
    """Mean ± interval; of one seed its value alone."""
    found, alone = standing.estimate(group), standing.mean(group)
    return format_estimate(found) if found is not None else f"{alone:.4g}" if alone is not None else NOTHING


def best_mean(metric: str) -> str:
    """What the best mean is."""
    return f"{'highest' if direction(metric) == 'max' else 'lowest'} mean"


def _against(standing: MetricComparison, group: Group) -> tuple[str, str]:
    if group is standing.reference:
        return "", "baseline" if standing.chosen else best_mean(standing.metric)
    found = standing.difference(group)
    if found is None:
        return NOTHING, "no value"
    if found.mean is None:
        return NOTHING, "no seed in common"
    pairs = f" ({found.pairs} pairs)" if found.alone else ""
    if found.interval is None:
        return f"{f'×{found.mean:.3g}' if standing.ratios else f'{found.mean:+.3g}'}{pairs}", "one seed: no verdict"
    return f"{format_estimate(found.interval, signed=True)}{pairs}", found.verdict


def markdown(table: Sequence[Sequence[str]], words: Sequence[int] = (0, 4)) -> str:
    """Rows as a Markdown table, the first of them as its head; columns to the right but for those of words."""
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in table)
    rule = [":---" if place in words else "---:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def describe(standing: MetricComparison) -> str:
    """What a metric says of all groups, in one sentence."""
    known = dict(zip(map(id, standing.groups), group_labels(standing.groups)[1], strict=True))
    if standing.reference is None:
        return f"no group has a {standing.metric} to compare with"
    of, name = standing.metric, known[id(standing.reference)]
    first = f"{of} beside {name}: " if standing.chosen else f"{name} has the {best_mean(of)} {of}; "
    return first + (_verdicts(standing.differences, known) or "there is nothing to compare it with")


def _verdicts(differences: Sequence[Difference], known: dict[int, str]) -> str:
    said: dict[str, list[str]] = {}
    for one in differences:
        said.setdefault(one.verdict or "without a verdict", []).append(known[id(one.group)])
    order = ("better", "worse", "not distinguishable", "equal", "without a verdict")
    return "; ".join(f"{_listed(said[word])} {_are(said[word])} {word}" for word in order if word in said)


def _listed(names: Sequence[str]) -> str:
    if len(names) > 5:
        return f"{len(names)} others"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _are(names: Sequence[str]) -> str:
    return "are" if len(names) > 1 else "is"
