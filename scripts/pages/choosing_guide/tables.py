"""Results of sweeps as a Markdown table, and of a study in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from losslab.analysis.compare.statistics import Estimate, mean_estimate, paired_difference, verdict
from losslab.analysis.compare.tables import format_estimate
from losslab.io.metric_names import direction
from pages.choosing_guide.situation import Sweeps
from pages.experiments import Result
from pages.study import StudyRow

Values = dict[str, dict[str, list[float]]]
"""Label → metric → values, ordered by seed."""


def values_of(sweeps: Sweeps, results: Sequence[Result]) -> Values:
    """Collect the results of one experiment."""
    values: Values = {}
    own = [result for result in results if result.experiment == sweeps.name]
    for result in sorted(own, key=lambda result: result.seed):
        values.setdefault(result.label, {}).setdefault(result.metric, []).append(result.value)
    return values


def table(sweeps: Sweeps, results: Sequence[Result]) -> str:
    """Format a table with one row per label: the number of seeds, means, and differences from the baseline."""
    values = values_of(sweeps, results)
    versus = ["target share"] if sweeps.levels else ["difference from first row"] if sweeps.baseline else []
    head = ["runs", "n", *(cell for metric in sweeps.metrics for cell in (metric, *versus))]
    labels = sorted(values, key=lambda label: label != sweeps.baseline)
    rows = []
    for label in labels:
        cells = [cell for metric in sweeps.metrics for cell in _cells(sweeps, values, label, metric)]
        rows.append([f"`{label}`", str(_seeds(values[label])), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def describe_levels(sweeps: Sweeps, results: Sequence[Result]) -> str:
    """Say in a sentence for which losses τ is inside the interval of the first metric."""
    values, metric = values_of(sweeps, results), sweeps.metrics[0]
    right = [label for label, each in values.items() if mean_estimate(each[metric]).contains(_level(label))]
    names = [f"`{label.removeprefix('loss=').replace('loss.', '')}`" for label in right]
    return f"the 95 % interval of the {metric} contains τ for {_join(names) if names else 'no loss'}"


def rename(rows: Sequence[StudyRow], words: Mapping[str, str]) -> list[StudyRow]:
    """Return the rows of a study with labels, or words of them, replaced, without rows that only repeat a group."""
    return [replace(row, group=_rename(row.group, words)) for row in rows if row.verdict != "same runs"]


def _rename(label: str, words: Mapping[str, str]) -> str:
    return words.get(label) or " ".join(filter(None, (words.get(word, word) for word in label.split(" "))))


def describe(rows: Sequence[StudyRow], *, amounts: bool = False) -> str:
    """Summarise the verdicts of a study, such as "`huber` is worse; `l1` is undecided", if wanted with amounts."""
    (reference,) = [row.group for row in rows if row.verdict == "reference"]
    parts = []
    for word in ("better", "worse", "equivalent", "undecided", "diverged"):
        found = [row for row in rows if row.verdict == word]
        with_amount = amounts and word in {"better", "worse"}
        names = [f"`{row.group}`{f' (by {amount(row)})' if with_amount else ''}" for row in found]
        if found:
            than = f" than `{reference}`" if with_amount else ""
            parts.append(f"{_join(names)} {'is' if len(found) == 1 else 'are'} {word}{than}")
    return "; ".join(parts)


def better_than_recommended(rows: Sequence[StudyRow], recommended: Sequence[str]) -> list[StudyRow]:
    """Return the rows, sorted from the best, that are better than the reference and precede each recommended row."""
    best = next((at for at, row in enumerate(rows) if row.verdict == "reference" or row.group in recommended), 0)
    return [row for row in rows[:best] if row.verdict == "better"]


def disagreement(first: str, better: Sequence[StudyRow]) -> str:
    """Say that losses were better than the recommended one; "" if none was."""
    found = [f"`{row.group}` was better by {amount(row)}" for row in better]
    return f"The source recommends {first}; here {_join(found)}." if found else ""


def amount(row: StudyRow) -> str:
    """Return the size of a difference from the reference: "1.2 points", or for an error "a factor of 1.2"."""
    if row.difference is None:
        return "an unknown amount"
    if not row.scale.by_ratio:
        return f"{abs(100 * row.difference):.2g} points"
    factor = max(row.difference, 1 / row.difference)
    return f"a factor of {factor:.3g}"


def _seeds(values: dict[str, list[float]]) -> int:
    return max(map(len, values.values()))


def _cells(sweeps: Sweeps, values: Values, label: str, metric: str) -> list[str]:
    estimate = mean_estimate(values[label][metric], sweeps.step(metric))
    if sweeps.levels:
        level = _level(label)
        inside = "inside" if estimate.contains(level) else "outside"
        return [format_estimate(estimate), f"{level:g}: {inside} the interval"]
    if not sweeps.baseline:
        return [format_estimate(estimate)]
    if label == sweeps.baseline:
        return [format_estimate(estimate), ""]
    difference = _difference(sweeps, values, label, metric)
    return [format_estimate(estimate), f"{format_estimate(difference, signed=True)}: {_verdict(difference, metric)}"]


def _difference(sweeps: Sweeps, values: Values, label: str, metric: str) -> Estimate:
    return paired_difference(values[label][metric], values[sweeps.baseline][metric], sweeps.step(metric))


def _verdict(difference: Estimate, metric: str) -> str:
    return verdict(difference, higher_is_better=metric != "error of log σ" and direction(metric) == "max")


def _level(label: str) -> float:
    return float(label.rpartition("loss.tau=")[2])


def _join(labels: Sequence[str]) -> str:
    return f"{', '.join(labels[:-1])} and {labels[-1]}" if labels[1:] else labels[0]
