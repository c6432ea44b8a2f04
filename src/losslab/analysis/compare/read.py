"""Whether files of a run hold what a run writes: asked once, as they are read, so that nobody after asks again.

Run folders in, records out: what ended, and what did not and why.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import Any

from losslab import runs
from losslab.errors import LabError
from losslab.io.untrusted import read_bytes
from losslab.runs import RunFolder, read_text
from losslab.runs.sweep_summary import State, jobs_of

_COUNTS = ("epoch", "step")
_SHARES = {"accuracy", "precision", "recall", "f1", "ece"}
_HUGE = 1e100
"""No loss of a network comes near it, and above it squares of squares overflow, of which intervals are made."""


def final(content: Any) -> dict[str, float]:
    """The final values in the content of a metrics.json; what was not finite stands there as null and is left out.

    Raises:
        ValueError: it is no table of such values, or is empty, or a name is of more than a line.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError("no values by name")
    strange = next((name for name in content if not str(name).isprintable()), None)
    if strange is not None:
        raise ValueError(f"{ascii(strange)[:80]} is no name of a value")
    return {name: number(name, value) for name, value in content.items() if value is not None}


def number(name: str, found: Any) -> float:
    """A value of a run.

    Raises:
        ValueError: it is no number, or none that a value of this name can be.
    """
    if isinstance(found, bool) or not isinstance(found, int | float):
        message = f"{name} is {found!r:.40}, no number"
    elif not abs(found) < _HUGE:  # NaN is not
        message = f"{name} is {found!r:.40}"
    elif _is_share(name) and not -1e-6 <= found <= 1 + 1e-6:
        message = f"{name} is {found!r:.40}, not between 0 and 1"
    else:
        return float(found)
    raise ValueError(message)


def cell(name: str, text: str) -> float:
    """A value in a table of epochs; NaN where the cell is empty or holds what is not finite, as of a loss in an epoch.

    Raises:
        ValueError: it is no number, or none that a value of this name can be.
    """
    found = float(text or "nan")
    if name in _COUNTS and not (0 <= found < 1e15 and found.is_integer()):
        raise ValueError(f"{name} is {text or 'empty'}, no count")
    if name == "seconds" and not 0 <= found < 1e15:
        raise ValueError(f"{name} is {text or 'empty'}")
    return float("nan") if isnan(found) or abs(found) == float("inf") else number(name, found)


def _is_share(name: str) -> bool:
    """Whether a value is a share of examples, or a mean of shares or of differences of such."""
    return "/" in name and name.rpartition("/")[2].removesuffix("_given") in _SHARES


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
class RunCollection:
    """All that was found."""

    runs: list[Run] = field(default_factory=list)
    flaws: list[tuple[str, str]] = field(default_factory=list)
    """What is not even a run that could be put into a group: where or what it is, and why."""
    sweeps: list[Path] = field(default_factory=list)


def read_runs(places: Iterable[Path]) -> RunCollection:
    """All runs in these folders and below, each once.

    Raises:
        LabError: a folder is not there, or none holds a run.
    """
    places = [Path(place) for place in places]
    for place in places:
        if not place.is_dir():
            raise LabError(f"{place} is no folder" if place.exists() else f"there is no folder {place}")
    found = runs.search(places)
    reading = RunCollection(sweeps=found.sweeps)
    reading.flaws += [(str(runs.shown(place)), "cannot be read") for place in found.unreadable]
    jobs = _jobs(found, reading)
    for folder in found.runs:
        try:
            reading.runs.append(_run(folder, jobs.get(folder.path.resolve(), {})))
        except LabError as error:
            reading.flaws.append((str(runs.shown(folder.path)), f"damaged: {error}"))
    if not reading.runs and not reading.flaws:
        raise LabError(
            f"no run lies in {', '.join(map(str, places))}: name folders that `train` wrote, or one above them"
        )
    return reading


def _jobs(found: runs.Found, reading: RunCollection) -> dict[Path, dict[str, Any]]:
    """What sweeps say of their jobs, by run folder; jobs that left none are flaws at once."""
    jobs: dict[Path, dict[str, Any]] = {}
    here = {folder.path.resolve() for folder in found.runs}
    for place in dict.fromkeys([*found.sweeps, *(folder.path.parent for folder in found.runs)]):
        try:
            rows = jobs_of(place)
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
        values = final(json.loads(read_text(folder.metrics)))
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


def read_columns(file: Path, wanted: Sequence[str]) -> dict[str, list[float]]:
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
        found = {name: [cell(name, row[at]) for row in cells] for name, at in places.items()} if whole else {}
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read {file} ({error})") from error
    if not whole:
        raise LabError(f"cannot read {file} (a line is cut off)")
    return found
