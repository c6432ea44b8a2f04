"""Results of a situation as a Markdown table, and as a summary for the decision table."""

from collections.abc import Sequence

from losslab.analysis.compare.statistics import Estimate, mean_estimate, paired_difference, verdict
from losslab.analysis.compare.tables import format_estimate
from losslab.io.metric_names import direction
from pages.choosing_guide.situation import Situation
from pages.experiments import Result

Values = dict[str, dict[str, list[float]]]
"""Label → metric → values, ordered by seed."""


def values_of(situation: Situation, results: Sequence[Result]) -> Values:
    """Collect the results of one situation."""
    values: Values = {}
    own = [result for result in results if result.experiment == situation.name]
    for result in sorted(own, key=lambda result: result.seed):
        values.setdefault(result.label, {}).setdefault(result.metric, []).append(result.value)
    return values


def table(situation: Situation, results: Sequence[Result]) -> str:
    """Format a table with one row per label: the number of seeds, means, and differences from the baseline."""
    values = values_of(situation, results)
    versus = ["target share"] if situation.levels else ["difference from first row"] if situation.baseline else []
    head = ["runs", "n", *(cell for metric in situation.metrics for cell in (metric, *versus))]
    labels = sorted(values, key=lambda label: label != situation.baseline)
    rows = []
    for label in labels:
        cells = [cell for metric in situation.metrics for cell in _cells(situation, values, label, metric)]
        rows.append([f"`{label}`", str(_seeds(values[label])), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def describe(situation: Situation, results: Sequence[Result]) -> str:
    """Summarise how the other losses compare with the baseline in the first metric."""
    values, metric = values_of(situation, results), situation.metrics[0]
    if situation.levels:
        right = [label for label, each in values.items() if mean_estimate(each[metric]).contains(_level(label))]
        return f"{metric}: τ is inside the 95 % interval for {', '.join(map(_short, right)) or 'no loss'}"
    labels_of: dict[str, list[str]] = {}
    for label in values:
        if label != situation.baseline:
            word = _verdict(_difference(situation, values, label, metric), metric)
            labels_of.setdefault(word, []).append(_short(label))
    order = ("worse", "better", "not distinguishable", "equal")
    verdicts = [f"{_join(labels_of[word])} {word}" for word in order if word in labels_of]
    return f"{metric}: {'; '.join(verdicts)}"


def count_differences(situations: Sequence[Situation], results: Sequence[Result]) -> int:
    """Count the differences on the page that have a verdict."""
    compared = [situation for situation in situations if situation.baseline]
    return sum(len(each.metrics) * (len(values_of(each, results)) - 1) for each in compared)


def _seeds(values: dict[str, list[float]]) -> int:
    return max(map(len, values.values()))


def _cells(situation: Situation, values: Values, label: str, metric: str) -> list[str]:
    estimate = mean_estimate(values[label][metric], situation.step(metric))
    if situation.levels:
        level = _level(label)
        inside = "inside" if estimate.contains(level) else "outside"
        return [format_estimate(estimate), f"{level:g}: {inside} the interval"]
    if not situation.baseline:
        return [format_estimate(estimate)]
    if label == situation.baseline:
        return [format_estimate(estimate), ""]
    difference = _difference(situation, values, label, metric)
    return [format_estimate(estimate), f"{format_estimate(difference, signed=True)}: {_verdict(difference, metric)}"]


def _difference(situation: Situation, values: Values, label: str, metric: str) -> Estimate:
    return paired_difference(values[label][metric], values[situation.baseline][metric], situation.step(metric))


def _verdict(difference: Estimate, metric: str) -> str:
    return verdict(difference, higher_is_better=metric != "error of log σ" and direction(metric) == "max")


def _level(label: str) -> float:
    return float(label.rpartition("loss.tau=")[2])


def _join(labels: Sequence[str]) -> str:
    return f"{', '.join(labels[:-1])} and {labels[-1]} are" if labels[1:] else f"{labels[0]} is"


def _short(label: str) -> str:
    return f"`{label.removeprefix('loss=').replace('loss.', '')}`"
