"""Notes below the tables of a comparison: how to read the tables, and possible misinterpretations."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from losslab.analysis.compare.differences import MetricComparison, Scale
from losslab.analysis.compare.grouping import Group, environment_settings, labels_by_value, shorten, unnamed_differences
from losslab.errors import LabError
from losslab.runs.sweep_summary import STUDY_SWEEPER, read_command

_TRAINING_ONLY = ("batch_size", "crop", "flip", "cutout", "reflect", "alternate", "subset")
"""Settings of the data that do not change the validation and test sets."""


def write_notes(groups: Sequence[Group], by_metric: Mapping[str, MetricComparison], scale: Scale) -> list[str]:
    """Write all notes that apply, one or two sentences each; `scale` is the argument of `compare`."""
    comparisons = [*by_metric.values()]
    notes = [*_intervals(comparisons), *_ratios(comparisons, scale), *_few_seeds(groups, comparisons)]
    notes += _splits([*by_metric])
    for write in (_study, _unnamed_settings, _data_settings, _missing_seeds, _repeated_runs, _environments):
        notes += write(groups)
    return notes


def _intervals(comparisons: Sequence[MetricComparison]) -> Iterator[str]:
    scales = {each.ratios for each in comparisons if any(each.estimate(group) is not None for group in each.groups)}
    forms = (
        (False, "± is half the width of Student's 95 % interval of the mean over n seeds"),
        (True, "“(a to b)” is Student's 95 % interval of the geometric mean over n seeds"),
    )
    if scales:
        used = "; ".join(form for ratios, form in forms if ratios in scales)
        yield f"{used}. It describes the variation between seeds, not between test sets."
    tested = [comparison for comparison in comparisons if comparison.differences and comparison.family_size]
    if tested:
        yield (
            f"Differences and ratios are between runs with the same seed. {_correction(tested)} “Not distinguishable” "
            "means that the interval contains 0 (for ratios: 1); it does not mean that there is no difference."
        )


def _correction(comparisons: Sequence[MetricComparison]) -> str:
    """Describe how the intervals are corrected for the number of differences in a metric."""
    sizes = {comparison.family_size for comparison in comparisons}
    if sizes == {1}:
        return (
            "One difference per metric is tested: a verdict “better” or “worse” is wrong with probability at most 5 %."
        )
    low, high = min(sizes), max(sizes)
    count = f"all {high}" if low == high else f"all {low} to {high}"
    family = (
        f"{count} differences from the baseline in a metric"
        if comparisons[0].has_baseline
        else f"{count} pairs of groups in a metric, because the best group was selected on the same data"
    )
    return (
        f"Their intervals are corrected for {family} (Holm): the probability that any verdict “better” or “worse” in a "
        "metric is wrong is at most 5 %. It is not guaranteed that all intervals contain their true values "
        "simultaneously."
    )


def _ratios(comparisons: Sequence[MetricComparison], scale: Scale) -> Iterator[str]:
    metrics = [comparison.metric for comparison in comparisons if comparison.ratios]
    if metrics:
        why = (
            "as requested"
            if scale == "ratio"
            else "because the errors of groups differ more than tenfold, and large errors vary more between seeds "
            "(--scale difference compares by differences)"
        )
        yield f"{', '.join(metrics)}: means are geometric and groups are compared by their ratio, {why}."


def _few_seeds(groups: Sequence[Group], comparisons: Sequence[MetricComparison]) -> Iterator[str]:
    counts = {len(group.values(comparison.metric)) for group in groups for comparison in comparisons} - {0}
    if counts == {1}:
        yield "Each group has one seed: there are no intervals and no verdicts. Train with more seeds: seed=0,1,2,3,4."
    elif 1 in counts:
        yield "Groups with one seed have no interval."
    for comparison in comparisons:
        by_group = [(group.label, group.values(comparison.metric)) for group in comparison.groups]
        constant = [label for label, values in by_group if len(values) > 1 and len({*values.values()}) == 1]
        if constant and comparison.step == 0:
            yield (
                f"{comparison.metric} is the same for all seeds in {shorten(constant)}: an interval of width 0 means "
                "that the seed has no effect there, not that the value is exact."
            )


def _splits(metrics: Sequence[str]) -> Iterator[str]:
    for split, meaning in (
        ("val/", "optimistic, because the best epoch was selected on the same examples"),
        ("train/", "measured on the training examples, during training"),
    ):
        measured = [metric for metric in metrics if metric.startswith(split)]
        if measured:
            yield f"{', '.join(measured)}: {meaning}."


def _study(groups: Sequence[Group]) -> Iterator[str]:
    for sweep in {run.sweep for group in groups for run in group.runs if run.sweep is not None}:
        with suppress(LabError):
            if STUDY_SWEEPER in read_command(sweep):
                yield (
                    "The runs are the race of a study, which added seeds depending on the results. The intervals and "
                    "verdicts here are not corrected for that: in the metric of the study, those of its answer count."
                )
                return


def _unnamed_settings(groups: Sequence[Group]) -> Iterator[str]:
    labels = [group.label for group in groups]
    parts = [
        f"{key} ({', '.join(_values_in_groups(zip(values, labels, strict=True)))})"
        for key, values in unnamed_differences(groups).items()
    ]
    if parts:
        more = f" and {len(parts) - 6} more" if len(parts) > 6 else ""
        yield f"Besides the settings in their names, groups differ in {'; '.join(parts[:6])}{more}."


def _values_in_groups(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{value} in {shorten(labels)}" for value, labels in labels_by_value(pairs).items()]


def _data_settings(groups: Sequence[Group]) -> Iterator[str]:
    measured = ("data.", "choices.data", "trainer.limit_test_", "trainer.limit_val_", "trainer.fast_dev_run")
    found = {key for group in groups for key in group.settings}
    keys = {key for key in found if key.startswith(measured) or key.endswith("ignore_index")}
    evaluation = {key for key in keys if key.removeprefix("data.") not in _TRAINING_ONLY}
    differing = sorted(key for key in evaluation if len({_measured(group, key) for group in groups}) > 1)
    if differing:
        shown = dict.fromkeys(key.removeprefix("choices.").removesuffix("._target_") for key in differing)
        yield f"Groups differ in {', '.join(shown)}: they may not have been measured on the same examples."


def _measured(group: Group, key: str) -> str:
    value = str(group.settings.get(key))
    # An ignore_index below 0, such as the default, ignores no class.
    return "" if key.endswith("ignore_index") and not value.isdecimal() else value


def _missing_seeds(groups: Sequence[Group]) -> Iterator[str]:
    every = sorted({run.seed for group in groups for run in group.runs})
    for group in groups:
        own = {run.seed for run in group.runs}
        missing = [str(seed) for seed in every if seed not in own]
        if own and missing:
            seeds = "seeds" if len(missing) > 1 else "seed"
            yield f"The differences of {group.label} leave out {seeds} {shorten(missing)}, for which it has no result."


def _repeated_runs(groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        if group.repeated:
            seeds = [str(seed) for seed in sorted({run.seed for run in group.repeated})]
            newest = {run.seed: run for run in group.runs}
            same = all(
                run.metrics[name] == newest[run.seed].metrics[name]
                for run in group.repeated
                for name in run.metrics.keys() & newest[run.seed].metrics.keys()
            )
            end = "all gave the same values" if same else "THEY DID NOT GIVE THE SAME VALUES"
            yield f"{group.label} was run more than once with seed {shorten(seeds)}: the newest counts; {end}."


def _environments(groups: Sequence[Group]) -> Iterator[str]:
    found = [(group, environment_settings(run)) for group in groups for run in group.runs]
    for key in dict.fromkeys(key for _, settings in found for key in settings):
        each = _values_in_groups((settings.get(key, "unknown"), group.label) for group, settings in found)
        if len(each) > 1:
            yield f"Not all runs have the same {key}, which should change results only by rounding: {'; '.join(each)}."
