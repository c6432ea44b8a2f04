"""`compare` reads runs and groups them by configuration; `Comparison` has their differences, curves and notes."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losslab.analysis.compare import curves, figures, tables
from losslab.analysis.compare.differences import SCALES, MetricComparison, Scale, compare_metric
from losslab.analysis.compare.grouping import Group, find_baseline, group_runs, labels_by_value, shorten
from losslab.analysis.compare.notes import write_notes
from losslab.analysis.compare.read import RunCollection, read_runs
from losslab.errors import LabError
from losslab.io.metric_names import COUNTS
from losslab.io.tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DEFAULT_METRICS = ("accuracy", "nll", "ece", "mse", "mae")
NOTHING_FINISHED = "no finished run has a finite metric: there is nothing to compare"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Groups of runs, compared by one or more metrics."""

    collection: RunCollection
    groups: tuple[Group, ...]
    """All groups, in the order in which the first run of each was found."""
    metrics: tuple[str, ...]
    """The metrics to compare by; empty if no finished run has a finite metric."""
    baseline: Group | None = None
    reach: tuple[str, float | None] | None = None
    """The argument `reach` of `compare`."""
    scale: Scale = "auto"
    """The argument `scale` of `compare`."""
    better: Mapping[str, str] = field(default_factory=dict)
    """Whether lower ("min") or higher ("max") values are better, by the last part of a metric's name, where given."""

    @cached_property
    def by_metric(self) -> Mapping[str, MetricComparison]:
        """The comparison of the groups by each metric."""
        return {
            metric: compare_metric(self.groups, metric, self.baseline, self.scale, self._better(metric))
            for metric in self.metrics
        }

    def _better(self, metric: str) -> str | None:
        return self.better.get(metric.rpartition("/")[2])

    @property
    def ordered(self) -> tuple[Group, ...]:
        """The groups sorted by their mean of the first metric, the best first."""
        return self.by_metric[self.metrics[0]].groups if self.metrics else self.groups

    @cached_property
    def notes(self) -> list[str]:
        """Notes on how to read the tables and on possible misinterpretations, one or two sentences each."""
        return write_notes(self.groups, self.by_metric, self.scale)

    def table_markdown(self, metric: str | None = None) -> str:
        """Format a Markdown table of the groups: n, mean ± 95 % interval, difference from the reference and verdict.

        The default metric is the first of `metrics`. Raises LabError for a metric that is not in `metrics`.
        """
        return markdown_table(tables.metric_rows(self._find(metric)), left=(0, 4))

    def figure(self, metric: str | None = None) -> "Figure":
        """Draw the seeds, mean and interval of each group, and next to them the differences from the reference.

        The default metric is the first of `metrics`. Raises LabError for a metric that is not in `metrics`.
        """
        return figures.draw_metric(self._find(metric))

    def _find(self, metric: str | None) -> MetricComparison:
        if not self.metrics:
            raise LabError(NOTHING_FINISHED)
        if metric is not None and metric not in self.metrics:
            raise LabError(
                f"{metric!r:.60} is not compared: name one of {', '.join(self.metrics)}, or pass it to `compare`"
            )
        return self.by_metric[self.metrics[0] if metric is None else metric]

    @cached_property
    def histories(self) -> curves.Histories:
        """The curves of all compared runs: `metrics` on the validation and training data, and the losses."""
        names = [f"{split}/{metric.rpartition('/')[2]}" for split in ("val", "train") for metric in self.metrics]
        requested = [self.reach[0]] if self.reach is not None else []
        requested += [metric for metric in self.metrics if not metric.startswith(("train/", "val/", "test/"))]
        return curves.read_histories(self.groups, [*requested, *names, "train/loss", "val/loss"])

    @cached_property
    def time_to_reach(self) -> curves.TimeToReach | None:
        """When the runs of each group first reached the value of `reach`; None if no run has the curve."""
        default = (next((name for name in self.histories.names if not curves.is_loss(name)), ""), None)
        metric, value = self.reach or default
        better = self._better(metric)
        return curves.time_to_reach(self.ordered, self.histories, metric, value, better) if metric else None

    def curves_figure(self) -> "Figure":
        """Draw the mean curve of each group with a band over its seeds. Losses are divided by their first value."""
        return figures.draw_curves(self.ordered, self.histories, self.time_to_reach)

    @property
    def not_counted(self) -> list[tuple[str, str]]:
        """Each run, job and folder that is excluded from the comparison or from its curves: its name and the reason."""
        found = [
            *((f"{group.label} seed={run.seed}", run.problem) for group in self.groups for run in group.excluded),
            *self.collection.problems,
            *self.histories.problems,
        ]
        # Line breaks in the text of an untrusted folder could forge lines of the report.
        return [(" ".join(what.split()), " ".join(why.split())) for what, why in found]


def compare(
    folders: str | Path | Iterable[str | Path],
    metrics: str | Sequence[str] | None = None,
    baseline: str | Sequence[str] | None = None,
    reach: tuple[str, float | None] | None = None,
    scale: Scale = "auto",
) -> Comparison:
    """Group all runs in these folders and their subfolders by configuration, and compare the groups.

    Args:
        folders: one or more run folders, sweep folders, or folders above them.
        metrics: one or more metrics to compare by, such as "test/nll"; None for those among accuracy, nll, ece, mse
            and mae that all groups have, on the test data if possible. "val/my_metric=min" says that lower values are
            better, "=max" that higher values are; this is needed if the name does not tell.
        baseline: settings of the group to compare with, such as "loss=cross_entropy"; None for the best group.
        reach: a curve and a value to reach in it, such as ("val/accuracy", 0.6). None for the first metric on the
            validation data. If the value is None, it is chosen so that each group reaches it on average.
        scale: "difference", "ratio" or "auto". Ratios need values above 0. "auto" compares by ratios if the metric is
            an error without an upper bound (mse, mae, nll), all values are above 0, and the largest mean of a group is
            more than ten times the smallest.

    Raises:
        LabError: there is no run, the runs share no metric, a metric, curve or baseline does not exist, ratios are
            requested for values that are not above 0, or an argument has a wrong type.
    """
    paths = _as_list(folders, str | PathLike)
    if not paths:
        raise LabError(f"folders must be one or more paths of runs or of folders above them, got {folders!r:.60}")
    metric_names, baseline_values = _check_strings("metrics", metrics), _check_strings("baseline", baseline)
    with_direction = [name.rpartition("=") for name in metric_names or () if name.endswith(("=min", "=max"))]
    better = {name.rpartition("/")[2]: way for name, _, way in with_direction}
    metric_names = metric_names and [name.removesuffix("=min").removesuffix("=max") for name in metric_names]
    target = _check_reach(reach)
    if scale not in SCALES:
        raise LabError(f"there is no scale {scale!r:.60}; there are {', '.join(SCALES)}")
    collection = read_runs([Path(path) for path in paths])
    groups = group_runs(collection.runs)
    chosen = _choose_metrics(groups, metric_names)
    reference = None if baseline_values is None else find_baseline(groups, baseline_values)
    comparison = Comparison(collection, tuple(groups), chosen, reference, target, scale, better)
    _ = comparison.by_metric  # so that this call raises if a value has no ratio, or a metric no direction
    if target is not None:
        _check_name("curve", target[0], curves.history_columns(groups), groups, chosen, "no run has a history")
        _ = comparison.time_to_reach
    return comparison


def _as_list(value: object, kind: Any) -> list[Any] | None:
    """Convert one or more objects of a type to a list; None for anything else."""
    several = [*value] if isinstance(value, Iterable) and not isinstance(value, kind) else [value]
    return several if all(isinstance(one, kind) for one in several) else None


def _check_strings(argument: str, value: object) -> list[str] | None:
    """Convert one or more strings to a list; None stays None. Raises LabError for anything else."""
    strings = _as_list(value, str)
    if strings is None and value is not None:
        raise LabError(f"{argument} must be one or more strings, got {value!r:.60}")
    return strings


def _check_reach(reach: object) -> tuple[str, float | None] | None:
    """Return `reach` if it is None or a pair (curve, value), where the value is a finite number or None.

    Raises:
        LabError: it is anything else.
    """
    match reach:
        case None:
            return None
        case [str(curve), None]:
            return curve, None
        case [str(curve), value]:
            if isinstance(value, Real) and not isinstance(value, bool):
                with suppress(OverflowError):
                    if isfinite(value):
                        return curve, float(value)
            raise LabError(
                f"the value to reach in {curve} must be a finite number, such as {curve}=0.6, got {value!r:.60}"
            )
    raise LabError(f'reach must be a curve and a value, such as ("val/accuracy", 0.6), got {reach!r:.60}')


def _choose_metrics(groups: Sequence[Group], requested: Sequence[str] | None) -> tuple[str, ...]:
    """Return the requested metrics, or those default metrics that all groups with finite metrics share.

    Raises LabError if a requested metric does not exist or is a loss of groups with different losses, or if no default
    metric is shared.
    """
    by_group: dict[str, list[str]] = {}
    for group in groups:
        names = dict.fromkeys(name for run in group.runs for name in run.metrics if name not in COUNTS)
        if names:  # otherwise the group has no finished run, or all of them diverged
            by_group[group.label] = [*names]
    every = [*dict.fromkeys(name for names in by_group.values() for name in names)]
    if requested:
        for metric in requested:
            _check_name("metric", metric, every, groups, _defaults(every), NOTHING_FINISHED)
        return tuple(dict.fromkeys(requested))
    shared = _defaults([name for name in every if all(name in names for names in by_group.values())])
    if by_group and not shared:
        metrics = labels_by_value((", ".join(_defaults(names)) or "none", label) for label, names in by_group.items())
        each = "; ".join(f"{names} in {shorten(labels)}" for names, labels in metrics.items())
        raise LabError(f"these runs have no metric in common, compare them separately: {each}")
    return shared


def _defaults(names: Sequence[str]) -> tuple[str, ...]:
    """Return the default metrics of the test split, or else of the validation split, or else of the training split."""
    for split in ("test", "val", "train"):
        found = tuple(f"{split}/{name}" for name in _DEFAULT_METRICS if f"{split}/{name}" in names)
        if found:
            return found
    return ()


def _check_name(
    what: str, name: str, available: Sequence[str], groups: Sequence[Group], instead: Sequence[str], if_empty: str
) -> None:
    """Raise LabError for a name that does not exist, or for a loss if the groups were trained with different losses.

    For such a loss, the message suggests the metrics `instead`. If `available` is empty, it says `if_empty`.
    """
    losses = {
        tuple(sorted((key, str(value)) for key, value in group.settings.items() if key.startswith("loss.")))
        for group in groups
    }
    comparable = [each for each in available if len(losses) < 2 or not curves.is_loss(each)]
    if name not in available:
        verb = "is" if len(comparable) == 1 else "are"
        there_are = f"; there {verb} {', '.join(comparable)}" if comparable else f": {if_empty}"
        raise LabError(f"there is no {what} {name or repr(name)}{there_are}")
    if name not in comparable:
        advice = f"compare by one of {', '.join(instead)}" if instead else "these runs have no other metric"
        raise LabError(f"{name} means something different for each loss: {advice}")
