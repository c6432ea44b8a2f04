"""The results of a campaign so far, one line per case, so that an interrupted campaign can continue."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """One experiment of a campaign."""

    part: str
    name: str
    """Unique within its part. Part and name seed the random moments."""


class CaseResult(NamedTuple):
    """The result of a case."""

    counted: int
    """The number of kills, signals, payloads and so on."""
    failures: list[str]
    """A line for each broken promise."""
    measured: dict[str, float] | None = None
    """Numbers for a table of the part."""


class Record:
    """The results of the completed cases.

    Args:
        path: a file of JSON lines, which may hold the results of an interrupted campaign.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: dict[Case, CaseResult] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:  # cut off when the campaign was killed
                    continue
                self.results[Case(*entry["case"])] = CaseResult(*entry["found"])

    def add(self, case: Case, result: CaseResult) -> None:
        """Add the result of a case and write it to the file."""
        self.results[case] = result
        with self.path.open("a") as file:
            file.write(json.dumps({"case": case, "found": result}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def table(self, parts: Iterable[tuple[str, str, str]]) -> str:
        """The counts of each part, given as (key, description, unit), as a Markdown table; "" if no case was run."""
        lines = ["| what was done | cases | counted in the cases | failed |", "| --- | ---: | ---: | ---: |"]
        for key, description, unit in parts:
            mine = [result for case, result in self.results.items() if case.part == key]
            if mine:
                count, failed = sum(result.counted for result in mine), sum(len(result.failures) for result in mine)
                lines.append(f"| {description} | {len(mine)} | {count:,} {unit} | {failed} |")
        return "\n".join(lines) if len(lines) > 2 else ""

    @property
    def failures(self) -> list[str]:
        """All broken promises."""
        return [f"{case.part} {case.name}: {line}" for case, result in self.results.items() for line in result.failures]
