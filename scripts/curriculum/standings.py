"""What the runs of a lesson gave, and how its groups stand by the numbers that were kept of them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from campaigns.campaign import Result, sweep

from curriculum import sight
from curriculum.lesson import Claim, Lesson, Panel
from losslab.analysis.compare import Group, MetricComparison, Run, compare
from losslab.analysis.compare.differences import compare_metric
from losslab.runs import RunFolder


def results_of(lesson: Lesson, place: Path, curves: Path) -> list[Result]:
    """Run the preset, and keep the curves of its figure.

    Args:
        lesson: to run.
        place: working directory, which is empty.
        curves: the folder to keep the curves in.
    """
    groups = compare([sweep(lesson.preset.command, place)], lesson.metrics).groups
    sight.write(sight.gather(lesson.sight, groups), curves / f"{lesson.name}.csv")
    return list(_results(lesson, groups))


def _results(lesson: Lesson, groups: Iterable[Group]) -> Iterator[Result]:
    for one in groups:
        for run in one.runs:
            for metric in lesson.metrics:
                yield Result(lesson.name, one.label, run.seed, metric, run.metrics[metric])


def groups_of(lesson: Lesson, results: Iterable[Result]) -> list[Group]:
    """The groups that these numbers were kept of."""
    kept: dict[str, dict[int, dict[str, float]]] = {}
    for result in results:
        if result.row == lesson.name:
            kept.setdefault(result.label, {}).setdefault(result.seed, {})[result.metric] = result.value
    return [group(label.split(" "), seeds) for label, seeds in kept.items()]


def group(name: Iterable[str], seeds: dict[int, dict[str, float]]) -> Group:
    """A group of which only the parts of its name and, by seed, its metrics are known."""
    runs = [Run(RunFolder(Path()), {"seed": seed}, metrics, 0.0) for seed, metrics in sorted(seeds.items())]
    return Group(tuple(name), {}, tuple(runs))


def standings(panel: Panel, groups: Sequence[Group]) -> list[MetricComparison]:
    """How the groups of a panel stand beside its baseline, in each of its metrics."""
    inside = [
        Group(tuple(part for part in one.name if part != panel.within), one.settings, one.runs)
        for one in groups
        if not panel.within or panel.within in one.name
    ]
    (baseline,) = [one for one in inside if one.label == panel.baseline]
    return [compare_metric(inside, metric, baseline) for metric in panel.metrics]


def failing(claim: Claim, panel: Panel, groups: Sequence[Group], *, bounds: bool = True) -> str:
    """Why a claim does not hold; "" where it does.

    Args:
        claim: of the panel.
        panel: one of a lesson's.
        groups: of the lesson.
        bounds: whether the mean must lie where the claim says, too.
    """
    place = standings(panel, groups)[panel.metrics.index(claim.metric)]
    group = next(one for one in place.groups if one.label == claim.group)
    found, estimate = place.difference(group), place.estimate(group)
    said = found.verdict if found is not None else "baseline"
    if said != claim.verdict:
        return f"{claim.group} is {said} in {claim.metric}, not {claim.verdict}"
    if bounds and estimate is not None and not claim.low <= estimate.mean <= claim.high:
        return f"{claim.metric} of {claim.group} is {estimate.mean:.4g}, not from {claim.low:g} to {claim.high:g}"
    return ""
