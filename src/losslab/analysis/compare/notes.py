"""What must be known to read the tables, and what was left out of them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from losslab.analysis.compare.differences import MetricComparison
from losslab.analysis.compare.grouping import Group, environment_settings, format_value, unnamed_differences
from losslab.analysis.compare.read import Run

if TYPE_CHECKING:
    from losslab.analysis.compare.comparison import Comparison

_TRAINING_ONLY = ("batch_size", "crop", "flip", "cutout", "reflect", "alternate", "subset")


def notes(comparison: "Comparison") -> list[str]:
    """A sentence or two each."""
    groups = comparison.groups
    differing = unnamed_differences([one.settings for one in groups], [one.name for one in groups])
    everything = (
        _statistics(comparison),
        _ratios(comparison),
        _few(comparison),
        _metrics(comparison.metrics),
        _unsaid(groups, differing),
        _data(groups),
        _seeds(groups),
        _repeated(groups),
        _circumstances(groups),
    )
    return [note for some in everything for note in some]


def _statistics(comparison: "Comparison") -> Iterator[str]:
    standings = [comparison.standings[metric] for metric in comparison.metrics]
    if any(standing.estimate(one) is not None for standing in standings for one in standing.groups):
        yield (
            "± is half of Student's 95 % interval of the mean over n seeds: what other seeds would give, not what "
            "another test set would."
        )
    families = {standing.family for standing in standings if standing.differences} - {0}
    if families:
        yield (
            f"Differences and ratios are taken seed by seed, {_correction(families, comparison.baseline)}"
            "“Not distinguishable” means that 0 (of ratios 1) lies inside; it does not mean that there is no "
            "difference."
        )


def _correction(families: set[int], baseline: Group | None) -> str:
    """How the intervals of so many differences in a metric are corrected."""
    if families == {1}:
        return "and there is one in a metric: a claim is wrong with a chance of at most 5 %. "
    low, high = min(families), max(families)
    count, more = (f"all {high}", "") if low == high else ("all", f" ({low} to {high} of them)")
    why = (
        f"{count} differences from the baseline in a metric{more}"
        if baseline is not None
        else f"{count} pairs of groups in a metric{more}, because which is the best was found in the same data"
    )
    return (
        f"and their intervals are corrected for {why} (Holm): a claim anywhere among them is wrong with a chance of at "
        "most 5 %. That holds of the verdicts; that all intervals hold their true values at once is not promised. "
    )


def _ratios(comparison: "Comparison") -> Iterator[str]:
    metrics = [metric for metric, standing in comparison.standings.items() if standing.ratios]
    if metrics:
        why = (
            "as asked for"
            if comparison.scale == "ratio"
            else "since where errors lie far apart the larger ones vary more than the smaller ones are large "
            "(--scale difference compares by differences)"
        )
        yield f"{', '.join(metrics)}: means are geometric and groups are compared by their ratio, {why}."


def _few(comparison: "Comparison") -> Iterator[str]:
    counts = {len(one.values(metric)) for one in comparison.groups for metric in comparison.metrics} - {0}
    if counts == {1}:
        yield "One seed each: no interval exists and nothing can be told apart. Add seeds: seed=0,1,2,3,4."
    elif 1 in counts:
        yield "A group with one seed has no interval."
    for metric, standing in comparison.standings.items():
        fixed = [one.label for one in standing.groups if _fixed(standing, one)]
        if fixed:
            yield (
                f"{metric} is the same for all seeds in {_some(fixed)}: ± 0 there says nothing about chance, only that "
                "the seed changed nothing."
            )


def _fixed(standing: MetricComparison, group: Group) -> bool:
    values = [*group.values(standing.metric).values()]
    return len(values) > 1 and len(set(values)) == 1 and standing.step == 0


def _metrics(metrics: Sequence[str]) -> Iterator[str]:
    chosen = [metric for metric in metrics if metric.startswith("val/")]
    if chosen:
        yield f"{', '.join(chosen)}: of the best epoch, which was chosen on the same examples, so it flatters."
    train = [metric for metric in metrics if metric.startswith("train/")]
    if train:
        yield f"{', '.join(train)}: of the training examples, while they were learnt from."


def _unsaid(groups: Sequence[Group], differing: dict[str, list[str]]) -> Iterator[str]:
    if not differing:
        return
    parts = [f"{key} ({_by_value([one.label for one in groups], values)})" for key, values in differing.items()]
    more = f" and {len(parts) - 6} more" if len(parts) > 6 else ""
    yield f"Beside what their names say, groups differ in {'; '.join(parts[:6])}{more}."


def _by_value(names: Sequence[str], values: Sequence[str]) -> str:
    cells: dict[str, list[str]] = {}
    for name, value in zip(names, values, strict=True):
        cells.setdefault(value, []).append(name)
    return ", ".join(f"{value} in {_some(cell)}" for value, cell in cells.items())


def _data(groups: Sequence[Group]) -> Iterator[str]:
    keys = {key for one in groups for key in one.settings if key.startswith(("data.", "choices.data"))}
    own = {key for key in keys if key.removeprefix("data.") not in _TRAINING_ONLY}
    differing = sorted(key for key in own if len({format_value(one.settings.get(key)) for one in groups}) > 1)
    if differing:
        said = ", ".join(key.removeprefix("choices.") for key in differing if not key.endswith("_target_"))
        yield f"Groups differ in {said}: they may not have been measured on the same examples."


def _seeds(groups: Sequence[Group]) -> Iterator[str]:
    every = sorted({run.seed for one in groups for run in one.runs})
    for one in groups:
        own = {run.seed for run in one.runs}
        lacking = [seed for seed in every if seed not in own]
        if own and lacking:
            seeds = _some([*map(str, lacking)])
            yield f"{one.label} has no result for seed {seeds}, so these are not part of its differences."


def _repeated(groups: Sequence[Group]) -> Iterator[str]:
    for one in groups:
        if one.repeated:
            seeds = sorted({run.seed for run in one.repeated})
            newest = {run.seed: run for run in one.runs}
            same = all(_agree(run, newest[run.seed]) for run in one.repeated)
            end = "all gave the same values" if same else "THEY DID NOT GIVE THE SAME VALUES"
            yield (
                f"{one.label} was run more than once with seed {_some([*map(str, seeds)])}: the newest counts; {end}."
            )


def _agree(run: Run, other: Run) -> bool:
    shared = run.metrics.keys() & other.metrics.keys()
    return all(run.metrics[name] == other.metrics[name] for name in shared)


def _circumstances(groups: Sequence[Group]) -> Iterator[str]:
    runs = [(one, run) for one in groups for run in one.runs]
    found = [(one, environment_settings(run)) for one, run in runs]
    for key in dict.fromkeys(key for _, own in found for key in own):
        cells: dict[str, dict[str, None]] = {}
        for one, own in found:
            cells.setdefault(format_value(own[key]) if key in own else "unknown", {})[one.label] = None
        if len(cells) > 1:
            said = "; ".join(f"{value} in {_some([*names])}" for value, names in cells.items())
            yield f"Not all runs have the same {key}, which should change results by rounding only: {said}."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
