"""What the runs of a row gave, as tables and in a few words."""

from campaigns.campaign import Result

from choosings.row import Row
from losslab.analysis.compare.statistics import mean_estimate, paired_difference, verdict
from losslab.analysis.compare.tables import format_estimate
from losslab.io.metric_names import direction

Runs = dict[str, dict[str, list[float]]]
"""By label and metric, the values of the seeds in order."""


def runs_of(row: Row, results: list[Result]) -> Runs:
    """The results of one row."""
    runs: Runs = {}
    for result in sorted((result for result in results if result.row == row.name), key=lambda result: result.seed):
        runs.setdefault(result.label, {}).setdefault(result.metric, []).append(result.value)
    return runs


def table(row: Row, results: list[Result]) -> str:
    """A line for each kind of run: means, and the differences from the first choice."""
    runs = runs_of(row, results)
    head = ["runs", *(part for metric in row.metrics for part in (metric, *_versus(row)))]
    lines = [_line(head), _line(["---"] * len(head))]
    for label in sorted(runs, key=lambda label: label != row.baseline):
        cells = [part for metric in row.metrics for part in _cells(row, runs, label, metric)]
        lines.append(_line([f"`{label}`", *cells]))
    return "\n".join(lines)


def outcome(row: Row, results: list[Result]) -> str:
    """What the first metric says of the others beside the first choice."""
    runs, metric = runs_of(row, results), row.metrics[0]
    if row.levels:
        right = [label for label, values in runs.items() if mean_estimate(values[metric]).contains(_level(label))]
        return f"{metric} as asked for, within its interval: {', '.join(map(_short, right)) or 'none'}"
    found: dict[str, list[str]] = {}
    for label, values in runs.items():
        if label != row.baseline:
            apart = paired_difference(values[metric], runs[row.baseline][metric], row.step(metric))
            found.setdefault(verdict(apart, higher_is_better=_more(metric)), []).append(_short(label))
    order = ("worse", "better", "not distinguishable", "equal")
    return f"by {metric}, " + "; ".join(f"{word}: {', '.join(found[word])}" for word in order if word in found)


def differences(rows: tuple[Row, ...], results: list[Result]) -> int:
    """How many differences the page judges."""
    return sum(len(row.metrics) * (len(runs_of(row, results)) - 1) for row in rows if row.baseline)


def _cells(row: Row, runs: Runs, label: str, metric: str) -> tuple[str, ...]:
    found = mean_estimate(runs[label][metric], row.step(metric))
    if row.levels:
        level = _level(label)
        return format_estimate(found), f"{level:g}: {'within' if found.contains(level) else 'outside'} the interval"
    if not row.baseline:
        return (format_estimate(found),)
    if label == row.baseline:
        return format_estimate(found), ""
    apart = paired_difference(runs[label][metric], runs[row.baseline][metric], row.step(metric))
    return format_estimate(
        found
    ), f"{format_estimate(apart, signed=True)}: {verdict(apart, higher_is_better=_more(metric))}"


def _versus(row: Row) -> list[str]:
    return ["asked for"] if row.levels else ["minus the first line"] if row.baseline else []


def _more(metric: str) -> bool:
    return metric != "error of log σ" and direction(metric) == "max"


def _level(label: str) -> float:
    return float(label.rpartition("loss.tau=")[2])


def _short(label: str) -> str:
    return f"`{label.removeprefix('loss=').replace('loss.', '')}`"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
