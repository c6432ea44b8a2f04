"""Finding runs and sweeps below folders. Imports no torch."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from losslab.runs.folder import RunFolder

SUMMARY = "summary.json"
"""The file in a sweep's folder with the states of its jobs."""
JOBS = "jobs.json"
"""The file in a sweep's folder with the resolved configurations of its jobs; `resume=` reads it."""


@dataclass
class FoundRuns:
    """Runs, sweeps and unreadable folders, each listed once even if several links lead to it."""

    runs: list[RunFolder] = field(default_factory=list)
    sweeps: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)


def find_runs(folders: Iterable[Path]) -> FoundRuns:
    """Find the runs and sweeps among and below these folders, but not inside of run folders."""
    found, visited, waiting = FoundRuns(), set[str](), [*folders][::-1]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in visited:
            continue
        visited.add(real)
        if (folder / "config.json").is_file():
            found.runs.append(RunFolder(folder))
            continue
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: _sort_key(entry.name))
        except OSError:
            found.unreadable.append(folder)
            continue
        if any(entry.name == SUMMARY for entry in entries):
            found.sweeps.append(folder)
        waiting += [folder / entry.name for entry in reversed(entries) if entry.is_dir() and entry.name[0] != "."]
    return found


def _sort_key(name: str) -> tuple[int, str]:
    """Sort the jobs of a sweep by number: 2-a before 10-a."""
    number = name.partition("-")[0]
    return (int(number) if number.isdecimal() else -1, name)
