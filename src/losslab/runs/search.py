"""Runs and sweeps that lie in a folder, or below it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from losslab.runs.folder import RunFolder

SUMMARY = "summary.json"
"""What became of the jobs of a sweep, in its folder."""


@dataclass
class Found:
    """What lies in a folder, each thing once however many links lead to it."""

    runs: list[RunFolder] = field(default_factory=list)
    sweeps: list[Path] = field(default_factory=list)
    """Folders with a summary of their jobs."""
    unreadable: list[Path] = field(default_factory=list)


def search(places: Iterable[Path]) -> Found:
    """Look for run folders and sweeps in these folders and in all below them, but not inside of runs."""
    found, seen, waiting = Found(), set[str](), [*places][::-1]
    while waiting:
        place = waiting.pop()
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        if (place / "config.json").is_file():
            found.runs.append(RunFolder(place))
            continue
        try:
            inside = sorted(os.scandir(place), key=lambda entry: _in_order(entry.name))
        except OSError:
            found.unreadable.append(place)
            continue
        if any(entry.name == SUMMARY for entry in inside):
            found.sweeps.append(place)
        waiting += [place / entry.name for entry in reversed(inside) if entry.is_dir() and entry.name[0] != "."]
    return found


def _in_order(name: str) -> tuple[int, str]:
    """Jobs of a sweep by their number, so that the tenth does not come before the second."""
    number = name.partition("-")[0]
    return (int(number) if number.isdecimal() else -1, name)
