"""What a campaign has found so far: a line a case, on the disk at once, so that an interrupted campaign goes on."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """One experiment of a campaign."""

    part: str
    name: str
    """Tells it apart within its part; the random moments are drawn from both."""


class Found(NamedTuple):
    """What it showed."""

    counted: int
    """How many kills, signals, payloads and the like it held."""
    failures: list[str]
    """A line for each that did not go as promised."""


class Record:
    """The cases that are done.

    Args:
        path: a file of lines of JSON, which may hold the cases of an earlier, interrupted campaign.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[Case, Found] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:  # cut off when the campaign was killed
                    continue
                self.found[Case(*entry["case"])] = Found(*entry["found"])

    def add(self, case: Case, found: Found) -> None:
        """Keep what a case showed."""
        self.found[case] = found
        with self.path.open("a") as file:
            file.write(json.dumps({"case": case, "found": found}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def table(self, parts: Iterable[tuple[str, str, str]]) -> str:
        """The counts of each part (its key, what it does, what it counts), as Markdown."""
        lines = ["| what was done | cases | counted | failed |", "| --- | ---: | ---: | ---: |"]
        for key, what, unit in parts:
            mine = [found for case, found in self.found.items() if case.part == key]
            if mine:
                count, failed = sum(found.counted for found in mine), sum(len(found.failures) for found in mine)
                lines.append(f"| {what} | {len(mine)} | {count:,} {unit} | {failed} |")
        return "\n".join(lines)

    @property
    def failures(self) -> list[str]:
        """All that did not go as promised."""
        return [f"{case.part} {case.name}: {line}" for case, found in self.found.items() for line in found.failures]
