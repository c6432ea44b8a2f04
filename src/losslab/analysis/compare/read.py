"""Runs read from folders, with every value checked as it is read, and the reason for each run that does not count."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, nan
from pathlib import Path
from typing import Any

from losslab import runs
from losslab.errors import LabError
from losslab.io.untrusted import read_bytes
from losslab.runs import RunFolder, read_text
from losslab.runs.sweep_summary import State, read_summary_rows

_COUNTS = ("epoch", "step")
_SHARES = {"accuracy", "precision", "recall", "f1", "ece"}
"""Metrics that are a share of examples, or a mean of shares or of differences between shares."""
_LARGEST = 1e100
"""No metric comes near it, and the squares of squares that intervals are made of overflow far above it."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run as its folder shows it."""

    folder: RunFolder
    config: dict[str, Any]
    metrics: dict[str, float]
    """Final values; empty for a run that is not finished."""
    written: float
    """When it ended, or last wrote something, in seconds since 1970."""
    problem: str = ""
    """Why it does not count, in one line; "" if it does."""

    @property
    def seed(self) -> int:
        """The seed of all its random draws."""
        seed: int = self.config["seed"]
        return seed

    @cached_property
    def choices(self) -> dict[str, str | None]:
        """Choice of each config group; empty for a run that was built without Hydra."""
        return self.config.get("choices") or {}


@dataclass
class RunCollection:
    """Runs and sweeps found in folders."""

    runs: list[Run] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    """Jobs without a run folder and folders that cannot be read: which, and why."""
    sweeps: list[Path] = field(default_factory=list)


def read_runs(folders: Iterable[Path]) -> RunCollection:
    """Read all runs in these folders and below, each once.

    Raises:
        LabError: a folder does not exist, or there is no run.
    """
    folders = [Path(folder) for folder in folders]
    for folder in folders:
        if not folder.is_dir():
            raise LabError(f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}")
    found = runs.find_runs(folders)
    collection = RunCollection(sweeps=found.sweeps)
    collection.problems += [(str(runs.display_path(folder)), "cannot be read") for folder in found.unreadable]
    jobs = _read_jobs(found, collection)
    for run in found.runs:
        try:
            collection.runs.append(_read_run(run, jobs.get(run.path.resolve(), "")))
        except LabError as error:
            collection.problems.append((str(runs.display_path(run.path)), f"damaged: {error}"))
    if not collection.runs and not collection.problems:
        raise LabError(
            f"no run lies in {', '.join(map(str, folders))}: name folders that `train` wrote, or one above them"
        )
    return collection


def _read_jobs(found: runs.FoundRuns, collection: RunCollection) -> dict[Path, str]:
    """Problem of each run that is a job of a sweep, "" if there is none. Jobs without a run folder are added."""
    job_problems: dict[Path, str] = {}
    run_folders = {run.path.resolve() for run in found.runs}
    for sweep in dict.fromkeys([*found.sweeps, *(run.path.parent for run in found.runs)]):
        try:
            rows = read_summary_rows(sweep)
        except LabError as error:
            collection.problems.append((str(runs.display_path(sweep)), f"damaged: {error}"))
            continue
        for row in rows:
            path = (sweep / row["folder"]).resolve() if row.get("folder") else None
            if path is not None and path in run_folders:
                job_problems[path] = _job_problem(row)
            elif sweep in found.sweeps:  # not if a single run of the sweep was named
                name = f"{runs.display_path(sweep)}: job {row['job']} ({' '.join(row['overrides'])})"
                collection.problems.append((name, _job_problem(row) or "its folder is gone"))
    return job_problems


def _job_problem(job: dict[str, Any]) -> str:
    """State and reason of a job that is not done."""
    reason = job.get("reason")
    return "" if job["state"] is State.DONE else f"{job['state']}: {reason}" if reason else str(job["state"])


def _read_run(folder: RunFolder, job_problem: str) -> Run:
    config = folder.read_unchecked_config()
    try:
        metrics = check_metrics(json.loads(read_text(folder.metrics)))
        return Run(folder, config, metrics, folder.metrics.stat().st_mtime)
    except FileNotFoundError:
        problem = job_problem or _progress(folder, config)
    except (OSError, ValueError, RecursionError) as error:
        problem = f"damaged: {folder.metrics.name} ({error})"
    return Run(folder, config, {}, folder.config.stat().st_mtime, problem)


def _progress(folder: RunFolder, config: dict[str, Any]) -> str:
    epochs = 0
    with suppress(OSError):
        epochs = len(read_bytes(folder.history).splitlines()) - 1
    max_epochs = config.get("trainer", {}).get("max_epochs")
    return f"unfinished: {max(0, epochs)} of {max_epochs} epochs (still running, or it was killed)"


def read_columns(file: Path, wanted: Sequence[str]) -> dict[str, list[float]]:
    """Read some columns of history.csv or timing.csv, those that exist; NaN for cells that are empty or not finite.

    Raises:
        LabError: the file is damaged.
    """
    try:
        head, *rows = read_text(file).splitlines()
        names = head.split(",")
        indices = {name: names.index(name) for name in wanted if name in names}
        whole = all(row.count(",") == len(names) - 1 for row in rows)
        cells = [row.split(",", 1 + max(indices.values(), default=0)) for row in rows]
        found = {name: [_parse_cell(name, row[at]) for row in cells] for name, at in indices.items()} if whole else {}
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read {file} ({error})") from error
    if not whole:
        raise LabError(f"cannot read {file} (a line is cut off)")
    return found


def check_metrics(content: Any) -> dict[str, float]:
    """Check the content of a metrics.json → its values. Null values, which were not finite, are dropped.

    Raises:
        ValueError: it is no mapping from names to numbers, it is empty, or a name is not printable on one line.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError("no values by name")
    unprintable = next((name for name in content if not str(name).isprintable()), None)
    if unprintable is not None:
        raise ValueError(f"{ascii(unprintable)[:80]} is no name of a value")
    return {name: _check_value(name, value) for name, value in content.items() if value is not None}


def _check_value(name: str, value: Any) -> float:
    """Check that a value is a number that a metric of this name can have, or raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r:.40}, no number")  # noqa: TRY004 -- of a file's content
    if not abs(value) < _LARGEST:  # NaN is not
        raise ValueError(f"{name} is {value!r:.40}")
    is_share = "/" in name and name.rpartition("/")[2].removesuffix("_given") in _SHARES
    if is_share and not -1e-6 <= value <= 1 + 1e-6:
        raise ValueError(f"{name} is {value!r:.40}, not between 0 and 1")
    return float(value)


def _parse_cell(name: str, text: str) -> float:
    """Parse a cell of a table of epochs, or raise ValueError; NaN if it is empty or not finite."""
    value = float(text or "nan")
    if name in _COUNTS and not (0 <= value < 1e15 and value.is_integer()):
        raise ValueError(f"{name} is {text or 'empty'}, no count")
    if name == "seconds" and not 0 <= value < 1e15:
        raise ValueError(f"{name} is {text or 'empty'}")
    return _check_value(name, value) if isfinite(value) else nan
