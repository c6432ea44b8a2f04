"""`compare`: from run folders to groups, their differences, curves and notes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from losslab.analysis.compare import arguments, tables
from losslab.analysis.compare.curves import Histories, TimeToReach, is_loss, read_histories, time_to_reach
from losslab.analysis.compare.differences import SCALES, MetricComparison, Scale, compare_metric
from losslab.analysis.compare.grouping import Group, group_runs
from losslab.analysis.compare.notes import write_notes
from losslab.analysis.compare.read import RunCollection, read_runs
from losslab.errors import LabError
from losslab.io.tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTHING_FINISHED = "no run is finished: there is nothing to compare"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Groups of runs, compared by one or more metrics."""

    collection: RunCollection
    groups: tuple[Group, ...]
    """In the order of their first runs."""
    metrics: tuple[str, ...]
    """None if no run is finished."""
    baseline: Group | None = None
    reach: tuple[str, float | None] | None = None
    """A curve, and the value to reach in it."""
    scale: Scale = "auto"
    """Whether to compare by differences or by ratios."""

    @cached_property
    def by_metric(self) -> Mapping[str, MetricComparison]:
        """The comparison of the groups by each metric."""
        return {metric: compare_metric(self.groups, metric, self.baseline, self.scale) for metric in self.metrics}

    @property
    def ordered(self) -> tuple[Group, ...]:
        """The groups sorted by their mean of the first metric, the best first."""
        return self.by_metric[self.metrics[0]].groups if self.metrics else self.groups

    @cached_property
    def notes(self) -> list[str]:
        """How to read the tables, and what may mislead: one or two sentences each."""
        return write_notes(self.groups, self.by_metric, self.scale)

    def table_markdown(self, metric: str | None = None) -> str:
        """Table with a row for each group: mean ± 95 % interval, n, difference from the reference and verdict.

        Args:
            metric: one of `metrics`; None for the first. LabError for another, or if no run is finished.
        """
        return markdown_table(tables.metric_rows(self._find(metric)), left=(0, 4))

    def figure(self, metric: str | None = None) -> "Figure":
        """Figure of each group's seeds, mean and interval, and beside it the differences from the reference.

        Args:
            metric: one of `metrics`; None for the first. LabError for another, or if no run is finished.
        """
        from losslab.analysis.compare.figures import draw_metric  # noqa: PLC0415

        return draw_metric(self._find(metric))

    def _find(self, metric: str | None) -> MetricComparison:
        if not self.metrics:
            raise LabError(NOTHING_FINISHED)
        if metric is not None and metric not in self.metrics:
            raise LabError(
                f"{metric!r:.60} is not compared: name one of {', '.join(self.metrics)}, or pass it to `compare`"
            )
        return self.by_metric[self.metrics[0] if metric is None else metric]

    @cached_property
    def histories(self) -> Histories:
        """Curves of all runs that count: the metrics on validation and training data, and the losses."""
        names = [f"{split}/{metric.rpartition('/')[2]}" for split in ("val", "train") for metric in self.metrics]
        requested = [self.reach[0]] if self.reach is not None else []
        return read_histories(self.groups, [*requested, *names, "train/loss", "val/loss"])

    @cached_property
    def time_to_reach(self) -> TimeToReach | None:
        """When each group reached the value; None if there is no such curve."""
        default = (next((name for name in self.histories.names if not is_loss(name)), ""), None)
        metric, value = self.reach or default
        return time_to_reach(self.ordered, self.histories, metric, value) if metric else None

    def curves_figure(self) -> "Figure":
        """Figure of the curves of all groups with a band over seeds; losses are relative to their first value."""
        from losslab.analysis.compare.figures import draw_curves  # noqa: PLC0415

        return draw_curves(self.ordered, self.histories, self.time_to_reach)

    @property
    def not_counted(self) -> list[tuple[str, str]]:
        """Everything that was found and does not count: which run, job or folder, and why."""
        found = [
            *((f"{group.label} seed={run.seed}", run.problem) for group in self.groups for run in group.excluded),
            *self.collection.problems,
            *self.histories.problems,
        ]
        # Text of an untrusted folder may not start a line.
        return [(" ".join(what.split()), " ".join(why.split())) for what, why in found]


def compare(
    folders: str | Path | Iterable[str | Path],
    metrics: str | Sequence[str] | None = None,
    baseline: str | Sequence[str] | None = None,
    reach: tuple[str, float | None] | None = None,
    scale: Scale = "auto",
) -> Comparison:
    """Group all runs in these folders and below by their configurations, and compare the groups.

    Args:
        folders: one or more run folders, sweep folders, or folders above them.
        metrics: one or more final values to compare by; None for those of the task (test/accuracy, test/nll and
            test/ece; test/mse and test/mae).
        baseline: values that name the group to compare with, such as "loss=cross_entropy"; None for the best group.
        reach: a curve and a value, such as ("val/accuracy", 0.6); None for the metric of the task, and the value that
            the worst group reaches on average.
        scale: "difference", "ratio" (of values above 0), or "auto": ratios for errors without an upper bound (mse,
            mae, nll) if the means of groups differ more than tenfold.

    Raises:
        LabError: there is no run, the runs share no metric, a metric, curve or baseline does not exist, a value has no
            ratio, or an argument has a wrong type.
    """
    paths = arguments.check_folders(folders)
    metric_names = arguments.check_names("metrics", metrics)
    baseline_values = arguments.check_names("baseline", baseline)
    target = arguments.check_reach(reach)
    if scale not in SCALES:
        raise LabError(f"there is no scale {scale!r:.60}; there are {', '.join(SCALES)}")
    collection = read_runs(paths)
    groups = group_runs(collection.runs)
    chosen = arguments.choose_metrics(groups, metric_names)
    reference = None if baseline_values is None else arguments.find_baseline(groups, baseline_values)
    comparison = Comparison(collection, tuple(groups), chosen, reference, target, scale)
    _ = comparison.by_metric  # raises here for values without a ratio
    if target is not None:
        arguments.check_curve(groups, target[0], chosen)
    return comparison
