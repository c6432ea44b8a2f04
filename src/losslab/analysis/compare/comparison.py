"""`compare`: from folders to what is known of the groups in them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from losslab.analysis.compare import arguments, tables
from losslab.analysis.compare.curves import Histories, history_columns, is_loss, read_histories
from losslab.analysis.compare.differences import MetricComparison, Scale, compare_metric
from losslab.analysis.compare.grouping import Group, find_baseline, group_runs
from losslab.analysis.compare.metrics import choose, offered, refuse_losses, unknown
from losslab.analysis.compare.notes import notes
from losslab.analysis.compare.read import RunCollection, read_runs
from losslab.analysis.compare.time_to_reach import Reach, reach
from losslab.errors import LabError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


NOTHING = "no run is finished: there is nothing to compare"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Groups of runs, and where they stand in each metric."""

    reading: RunCollection
    groups: tuple[Group, ...]
    """In the order of their first runs."""
    metrics: tuple[str, ...]
    baseline: Group | None = None
    to_reach: tuple[str, float | None] | None = None
    """A curve and the value that it is to reach."""
    scale: Scale = "auto"
    """Whether groups are compared by differences or by ratios."""
    standings: dict[str, MetricComparison] = field(init=False)
    """By metric."""

    def __post_init__(self) -> None:
        standings = {metric: compare_metric(self.groups, metric, self.baseline, self.scale) for metric in self.metrics}
        object.__setattr__(self, "standings", standings)

    @property
    def ordered(self) -> tuple[Group, ...]:
        """The groups, those with the best mean of the first metric first."""
        return self.standings[self.metrics[0]].groups if self.metrics else self.groups

    @cached_property
    def notes(self) -> list[str]:
        """What must be known to read the tables, and what was left out of them, a sentence or two each."""
        return notes(self)

    def table_markdown(self, metric: str | None = None) -> str:
        """A row for each group: mean ± 95 % interval, n, difference from the reference and verdict.

        Args:
            metric: one of `metrics`; None for the first.

        Raises:
            LabError: it is none of them, or no run is finished.
        """
        return tables.markdown(tables.metric_rows(self._standing(metric)))

    def figure(self, metric: str | None = None) -> "Figure":
        """Each group's seeds, mean and interval in a metric, and its difference from the reference beside it.

        Args:
            metric: one of `metrics`; None for the first.

        Raises:
            LabError: it is none of them, or no run is finished.
        """
        from losslab.analysis.compare.figures import draw_metric  # noqa: PLC0415

        return draw_metric(self._standing(metric))

    def _standing(self, metric: str | None) -> MetricComparison:
        if not self.metrics:
            raise LabError(NOTHING)
        if metric is not None and metric not in self.metrics:
            raise LabError(
                f"{metric!r:.60} is not compared: name one of {', '.join(self.metrics)}, or ask `compare` for it"
            )
        return self.standings[self.metrics[0] if metric is None else metric]

    @cached_property
    def histories(self) -> Histories:
        """The curves of all runs that count: of the metrics on validation, and of the losses."""
        present = history_columns(self.groups)
        metric, _ = self.to_reach or (None, None)
        if metric is not None and metric not in present:
            raise LabError(unknown("curve", metric, offered(self.groups, present) or "no run kept a history"))
        names = [f"{split}/{metric.rpartition('/')[2]}" for split in ("val", "train") for metric in self.metrics]
        wanted = [*([metric] if metric else []), *names, "train/loss", "val/loss"]
        return read_histories(self.groups, wanted)

    @cached_property
    def reach(self) -> Reach | None:
        """Who reached the value that was asked for, and when; None where there is no such curve."""
        found = self.histories
        metric, value = self.to_reach or (next((name for name in found.names if not is_loss(name)), ""), None)
        return reach(self.ordered, found, metric, value) if metric else None

    def curves_figure(self) -> "Figure":
        """The curves of all groups, each with a band over its seeds; losses relative to their own start."""
        from losslab.analysis.compare.figures import draw_curves  # noqa: PLC0415

        return draw_curves(self.ordered, self.histories, self.reach)

    @property
    def flaws(self) -> list[tuple[str, str]]:
        """Everything that was found and does not count: what or where it is, and why."""
        found = [
            *((f"{one.label} seed={run.seed}", run.flaw) for one in self.groups for run in one.flawed),
            *self.reading.flaws,
            *self.histories.flaws,
        ]
        return [(" ".join(what.split()), " ".join(why.split())) for what, why in found]  # the words are the folder's


def compare(
    folders: str | Path | Iterable[str | Path],
    metrics: str | Sequence[str] | None = None,
    baseline: str | Sequence[str] | None = None,
    reach: tuple[str, float | None] | None = None,
    scale: Scale = "auto",
) -> Comparison:
    """Group all runs in these folders and below by their configurations, and compare the groups.

    Args:
        folders: of runs, of sweeps, or any above them; one or several, as of metrics.
        metrics: final values to compare by; None for those of the task (test/accuracy, test/nll and test/ece;
            test/mse and test/mae).
        baseline: values that name the group to compare with, such as "loss=cross_entropy"; None for the best group.
        reach: a curve and its value, such as ("val/accuracy", 0.6); None for the task's metric, and the value that the
            worst group reaches on average.
        scale: "difference", "ratio" (of values above 0), or "auto": ratios for errors without an upper end (mse, mae,
            nll) where groups lie more than ten times apart.

    Raises:
        LabError: no run is there, the runs share no metric, a metric, curve or baseline is none of theirs, a value has
            no ratio, or an argument is none.
    """
    places, names, parts = (
        arguments.folders(folders),
        arguments.names("metrics", metrics),
        arguments.names("baseline", baseline),
    )
    to_reach = arguments.reach(reach)
    arguments.scale(scale)
    reading = read_runs(places)
    groups = group_runs(reading.runs)
    chosen = choose(groups, names)
    reference = None if parts is None else find_baseline(groups, parts)
    comparison = Comparison(reading, tuple(groups), chosen, reference, to_reach, scale)
    if to_reach is not None:
        refuse_losses(groups, to_reach[0], chosen)
        _ = comparison.histories  # which knows the curves there are
    return comparison
