"""Repeat experiments and compare their numbers with the recorded ones; equal numbers make stale results current.

If a module has changed, not every experiment that uses it has to be repeated. An experiment is confirmed by another one
that was recorded with the same version of the module, uses at least the same classes and functions of it as `_target_`,
and gives equal numbers with the new version.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from math import isclose, isnan
from pathlib import Path
from typing import Any

from pages.experiments import Experiment, Result, fingerprint_of, read_records, read_results, write_records
from pages.freshness import Change, Fingerprint, Staleness, format_hashes, parse_hashes
from pages.page import Page

_TOLERANCE = 1e-6
"""Largest relative difference of equal numbers."""


@dataclass(frozen=True)
class Recorded:
    """An experiment of a page, and what was recorded about it."""

    page: Page
    experiment: Experiment
    record: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """The page and the experiment, as on the command line."""
        return f"{self.page.name} {self.experiment.name}"

    @property
    def seconds(self) -> float:
        """The recorded duration."""
        return float(self.record["seconds"]) if self.record else 0.0

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The present fingerprint."""
        return fingerprint_of(self.experiment)

    @cached_property
    def staleness(self) -> Staleness:
        """What has changed since it was recorded."""
        return Staleness.of(self.experiment.definition, self.record, self.fingerprint)

    def can_confirm(self, other: "Recorded", change: Change) -> bool:
        """Return whether equal numbers of this experiment confirm that a change is harmless for another one."""
        module, none = change[0], frozenset[str]()
        covered = other.fingerprint.targets.get(module, none) <= self.fingerprint.targets.get(module, none)
        return covered and change in self.staleness.code


def read_all(pages: Sequence[Page], docs: Path) -> list[Recorded]:
    """Read the records of all experiments of some pages."""
    found = []
    for page in pages:
        records = read_records(docs / page.name)
        found += [Recorded(page, each, records.get(each.name)) for each in page.experiments]
    return found


def choose(recorded: Sequence[Recorded]) -> list[Recorded]:
    """Choose experiments whose repetition confirms all that can be confirmed, the fastest that are enough.

    If nothing is stale, choose the fastest one.
    """
    repeatable = [each for each in recorded if not each.staleness.needs_run]
    chosen = [each for each in repeatable if each.staleness.needs_repetition]
    left = [(each, change) for each in repeatable if each not in chosen for change in each.staleness.code]

    def uncovered(by: Recorded) -> list[tuple[Recorded, Change]]:
        return [(other, change) for other, change in left if not by.can_confirm(other, change)]

    for each in chosen:
        left = uncovered(each)
    while left:
        candidates = {id(each): each for each, _ in left}.values()
        best = max(candidates, key=lambda each: (len(left) - len(uncovered(each))) / max(each.seconds, 1))
        chosen.append(best)
        left = uncovered(best)
    if not chosen and repeatable:
        chosen = [min(repeatable, key=lambda each: each.seconds)]
    return chosen


def verify(chosen: Sequence[Recorded], recorded: Sequence[Recorded], docs: Path) -> bool:
    """Repeat experiments, and record the present hashes where the numbers are equal. Return whether all are equal.

    Args:
        chosen: the experiments to repeat, which have results.
        recorded: all experiments that they may confirm.
        docs: the folder of the pages.
    """
    equal = True
    for each in chosen:
        print(f"repeat {each.name}: {each.seconds:.0f} s when it was recorded", flush=True)
        own = [result for result in read_results(docs / each.page.name) if result.experiment == each.experiment.name]
        differences = compare(own, _repeat(each.experiment))
        if differences:
            equal = False
            print(*(f"  {line}" for line in differences[:10]), sep="\n")
            print(f"{each.name}: {len(differences)} of {len(own)} numbers differ. Recorded: {_conditions(each)}")
        else:
            _record(each, recorded, docs)
            print(f"{each.name}: all {len(own)} numbers are equal", flush=True)
    return equal


def _repeat(experiment: Experiment) -> list[Result]:
    with tempfile.TemporaryDirectory() as work_dir, tempfile.TemporaryDirectory() as results_dir:
        return experiment.run(Path(work_dir), Path(results_dir))


def _conditions(each: Recorded) -> str:
    return str(each.record["conditions"]) if each.record else ""


def compare(recorded: Sequence[Result], repeated: Sequence[Result]) -> list[str]:
    """List the numbers that differ, by more than a relative difference of 1e-6."""
    before, now = ({(each.label, each.seed, each.metric): each.value for each in some} for some in (recorded, repeated))
    return [
        f"{label}, seed {seed}, {metric}: recorded {old}, now {new}"
        for label, seed, metric in sorted(before.keys() | now.keys())
        for old, new in [(before.get((label, seed, metric)), now.get((label, seed, metric)))]
        if not _equal(old, new)
    ]


def _equal(old: float | None, new: float | None) -> bool:
    if old is None or new is None:
        return False
    return isclose(old, new, rel_tol=_TOLERANCE) or (isnan(old) and isnan(new))


def _record(repeated: Recorded, recorded: Sequence[Recorded], docs: Path) -> None:
    """Record the present hashes of an experiment with equal numbers, and its changed modules for those it confirms."""
    for page in {id(each.page): each.page for each in recorded}.values():
        records = read_records(docs / page.name)
        if not records:  # the page was never made
            continue
        for each in recorded:
            record = records.get(each.experiment.name)
            if each.page is not page or record is None:
                continue
            if each is repeated:
                record |= each.fingerprint.record() | {"repeated": f"{datetime.now(UTC):%Y-%m-%d}"}
            elif "code" in record:
                hashes = parse_hashes(record["code"])
                for change in repeated.staleness.code:
                    module, old, new = change
                    if hashes.get(module, "") == old and repeated.can_confirm(each, change):
                        hashes = {name: value for name, value in (hashes | {module: new}).items() if value}
                record["code"] = format_hashes(hashes)
        write_records(docs / page.name, records)
