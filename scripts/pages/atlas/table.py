"""The rows of all situations of a task, as a table of losses and situations."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log2
from pathlib import Path
from statistics import fmean

from losslab.analysis.compare.tables import NO_VALUE
from losslab.io.tables import markdown_table
from pages.atlas.studies import Situation, Task
from pages.study import StudyRow, format_difference

WORSE, BETTER, EQUIVALENT, UNDECIDED = "worse", "better", "equivalent", "undecided"
MARKS = {BETTER: "▲", WORSE: "▼", EQUIVALENT: "=", UNDECIDED: "?", "diverged": "diverged", "same runs": ""}


@dataclass(frozen=True)
class Atlas:
    """The results of one task."""

    task: Task
    rows: dict[str, dict[str, StudyRow]]
    """The name of the situation → label of the row → row; only situations that have been run."""

    @classmethod
    def read(cls, task: Task, folder: Path) -> "Atlas":
        """Read the rows of all situations from the folder of the page."""
        rows: dict[str, dict[str, StudyRow]] = {}
        for situation in task.situations:
            found = situation.study.rows(folder)
            if found:
                rows[situation.name] = {row.group: row for row in found}
        return cls(task, rows)

    @cached_property
    def situations(self) -> list[Situation]:
        """The situations that have been run."""
        return [each for each in self.task.situations if each.name in self.rows]

    @cached_property
    def labels(self) -> list[str]:
        """The labels of all rows but the reference, the best on average first.

        Methods after training that never change the metric are left out.
        """
        found = {label for rows in self.rows.values() for label, row in rows.items() if row.verdict != "same runs"}
        return sorted(found - {self.task.reference}, key=lambda label: (-self._mean_gain(label), label))

    def _mean_gain(self, label: str) -> float:
        gains = [self.gain(name, label) for name in self.rows]
        known = [gain for gain in gains if gain is not None]
        return fmean(known) if known else float("-inf")

    def row(self, situation: str, label: str) -> StudyRow | None:
        """Return a row; None if it does not exist in this situation."""
        return self.rows.get(situation, {}).get(label)

    def gain(self, situation: str, label: str) -> float | None:
        """Return how much better a row is than the reference: points of a share, or log2 of the ratio of errors."""
        row = self.row(situation, label)
        if row is None or row.difference is None:
            return None
        if row.scale.by_ratio:
            return -log2(row.difference)
        return 100 * row.difference if row.scale.higher_is_better else -100 * row.difference

    def with_verdict(self, situation: str, verdict: str, *, posthoc: bool = False) -> list[StudyRow]:
        """List the rows with a verdict in a situation, those with the largest gain first.

        Args:
            situation: its name.
            verdict: the verdict.
            posthoc: whether to list methods after training as well.
        """
        rows = [row for row in self.rows.get(situation, {}).values() if row.verdict == verdict]
        kept = [row for row in rows if posthoc or not row.is_posthoc]
        return sorted(kept, key=lambda row: -(self.gain(situation, row.group) or 0.0))

    def compared(self, situation: str) -> list[StudyRow]:
        """List the losses other than the reference in a situation."""
        rows = self.rows.get(situation, {}).values()
        return [row for row in rows if not row.is_posthoc and row.verdict != "reference"]


def verdict_table(atlas: Atlas) -> str:
    """Format a table of losses and situations: the difference from the reference, and the verdict."""
    rows = [("", *(situation.title for situation in atlas.situations))]
    for label in atlas.labels:
        cells = [_verdict_cell(atlas.row(each.name, label)) for each in atlas.situations]
        rows.append((f"`{label}`", *cells))
    return markdown_table(rows)


def _verdict_cell(row: StudyRow | None) -> str:
    if row is None or row.verdict == "same runs":
        return NO_VALUE
    return f"{format_difference(row)} {row.verdict}".strip()


def rate_table(atlas: Atlas) -> str:
    """Format a table of losses and situations: the best rate relative to the reference's, and the good range."""
    rows = [("", *(situation.title for situation in atlas.situations))]
    for label in [atlas.task.reference, *atlas.labels]:
        found = [atlas.row(each.name, label) for each in atlas.situations]
        if any(row is not None and row.rate is not None for row in found):
            rows.append((f"`{label}`", *map(_rate_cell, found)))
    return markdown_table(rows)


def _rate_cell(row: StudyRow | None) -> str:
    if row is None or row.rate is None or row.relative_rate is None or row.range_factor is None:
        return NO_VALUE
    edge = ", edge" if row.at_edge else ""
    width = f"{row.range_factor:.0f}" if row.range_factor >= 10 else f"{row.range_factor:.2g}"
    return f"× {row.relative_rate:.2g} ({width}{edge})"


def span(values: Sequence[float]) -> float:
    """Return the ratio of the largest value to the smallest."""
    return max(values) / min(values)
