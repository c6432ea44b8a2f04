"""Run folders in, records out: what ended, and what did not and why."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from losslab import runs, sweep
from losslab.comparison import sound
from losslab.errors import LabError
from losslab.plain_files import read_bytes
from losslab.runs import RunFolder, read_text
from losslab.sweep import State


@dataclass(frozen=True, eq=False)
class Run:
    """One run, as its folder shows it."""

    folder: RunFolder
    config: dict[str, Any]
    metrics: dict[str, float]
    """Final values; none of a run that is not finished."""
    written: float
    """When it ended, or was last heard of, in seconds since 1970."""
    flaw: str = ""
    """Why it does not count, in one line; "" for one that does."""

    @property
    def seed(self) -> int:
        """Of all its draws."""
        seed: int = self.config["seed"]
        return seed

    @cached_property
    def choices(self) -> dict[str, str | None]:
        """The choice of each group; none of a run that was built by hand."""
        return self.config.get("choices") or {}


@dataclass
class Reading:
    """All that was found."""

    runs: list[Run] = field(default_factory=list)
    flaws: list[tuple[str, str]] = field(default_factory=list)
    """What is not even a run that could be put into a group: where or what it is, and why."""
    sweeps: list[Path] = field(default_factory=list)


def read(places: Iterable[Path]) -> Reading:
    """All runs in these folders and below, each once.

    Raises:
        LabError: a folder is not there, or none holds a run.
    """
    places = [Path(place) for place in places]
    for place in places:
        if not place.is_dir():
            message = f"{place} is no folder" if place.exists() else f"there is no folder {place}"
            raise LabError(message)
    found = runs.search(places)
    reading = Reading(sweeps=found.sweeps)
    reading.flaws += [(str(runs.shown(place)), "cannot be read") for place in found.unreadable]
    jobs = _jobs(found, reading)
    for folder in found.runs:
        try:
            reading.runs.append(_run(folder, jobs.get(folder.path.resolve(), {})))
        except LabError as error:
            reading.flaws.append((str(runs.shown(folder.path)), f"damaged: {error}"))
    if not reading.runs and not reading.flaws:
        message = f"no run lies in {', '.join(map(str, places))}: name folders that `train` wrote, or one above them"
        raise LabError(message)
    return reading


def _jobs(found: runs.Found, reading: Reading) -> dict[Path, dict[str, Any]]:
    """What sweeps say of their jobs, by run folder; jobs that left none are flaws at once."""
    jobs: dict[Path, dict[str, Any]] = {}
    here = {folder.path.resolve() for folder in found.runs}
    for place in dict.fromkeys([*found.sweeps, *(folder.path.parent for folder in found.runs)]):
        try:
            rows = sweep.jobs_of(place)
        except LabError as error:
            reading.flaws.append((str(runs.shown(place)), f"damaged: {error}"))
            continue
        for row in rows:
            path = (place / row["folder"]).resolve() if row.get("folder") else None
            if path is not None and path in here:
                jobs[path] = row
            elif place in found.sweeps:  # of a run named alone, its neighbours are nobody's concern
                name = f"{runs.shown(place)}: job {row['job']} ({' '.join(row['overrides'])})"
                reading.flaws.append((name, _why(row) or "its folder is gone"))
    return jobs


def _why(job: dict[str, Any]) -> str:
    """How a job stands that is not done."""
    reason = job.get("reason")
    return "" if job["state"] is State.DONE else f"{job['state']}: {reason}" if reason else str(job["state"])


def _run(folder: RunFolder, job: dict[str, Any]) -> Run:
    config = folder.read_settings()
    try:
        values = sound.final(json.loads(read_text(folder.metrics)))
        return Run(folder, config, values, folder.metrics.stat().st_mtime)
    except FileNotFoundError:
        flaw = _why(job) if job else ""
        return Run(folder, config, {}, folder.config.stat().st_mtime, flaw or _unfinished(folder, config))
    except (OSError, ValueError, RecursionError) as error:
        return Run(folder, config, {}, folder.config.stat().st_mtime, f"damaged: {folder.metrics.name} ({error})")


def _unfinished(folder: RunFolder, config: dict[str, Any]) -> str:
    epochs: Any = 0
    with suppress(OSError):
        epochs = len(read_bytes(folder.history).splitlines()) - 1
    asked = config.get("trainer", {}).get("max_epochs")
    return f"unfinished: {max(0, epochs)} of {asked} epochs (still running, or it was killed)"


def columns(file: Path, wanted: Sequence[str]) -> dict[str, list[float]]:
    """Some columns of a run's table of epochs; those it has, and NaN where a cell is empty or not finite.

    Raises:
        LabError: the table is damaged.
    """
    try:
        head, *rows = read_text(file).splitlines()
        names = head.split(",")
        places = {name: names.index(name) for name in wanted if name in names}
        whole = all(row.count(",") == len(names) - 1 for row in rows)
        cells = [row.split(",", 1 + max(places.values(), default=0)) for row in rows]
        found = {name: [sound.cell(name, row[at]) for row in cells] for name, at in places.items()} if whole else {}
    except (OSError, ValueError) as error:
        message = f"cannot read {file} ({error})"
        raise LabError(message) from error
    if not whole:
        message = f"cannot read {file} (a line is cut off)"
        raise LabError(message)
    return found
