"""Reads runs from folders. Every value is validated; a run that cannot be compared is kept with the reason."""

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import compress, count, repeat
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losslab import runs
from losslab.errors import LabError
from losslab.io.untrusted import read_bytes
from losslab.runs import RunFolder, read_text
from losslab.runs.sweep_summary import State, read_summary_rows

SHARES = {
    f"{split}/{name}{given}"
    for split in ("train", "val", "test")
    for name in ("accuracy", "precision", "recall", "f1", "ece")
    for given in ("", "_given")
}
"""Metrics whose values are between 0 and 1. A metric of the user, such as my/accuracy, may be in percent."""

_COUNTS = ("epoch", "step")

Column = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Run:
    """The configuration and the final metrics of a run, as found in its folder."""

    folder: RunFolder
    config: dict[str, Any]
    metrics: dict[str, float]
    """The final value of each metric; empty if the run is not finished."""
    written: float
    """When metrics.json was written (config.json if the run is not finished), in seconds since 1970."""
    problem: str = ""
    """Why the run is excluded from the comparison, in one line; "" if it is included."""
    job_overrides: list[str] | None = None
    """The overrides of the job of a sweep; None if no sweep recorded them."""
    sweep: Path | None = None
    """The folder of this sweep."""

    @cached_property
    def overrides(self) -> list[str]:
        """The overrides that the user or the sweep set, such as "loss=focal"; [] if they are not recorded."""
        return self.folder.read_overrides() if self.job_overrides is None else self.job_overrides

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.config["seed"])

    @cached_property
    def choices(self) -> dict[str, str | None]:
        """The choice in each config group; empty if the run was built without Hydra."""
        return self.config.get("choices") or {}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The values of the configuration by dotted key, each printable on one line, because they may be untrusted."""
        return _flatten(self.config)


@dataclass
class RunCollection:
    """The runs and sweeps that were found in folders."""

    runs: list[Run] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    """Each job without a run folder, and each folder that cannot be read: its name, and the reason."""
    sweeps: list[Path] = field(default_factory=list)

    @property
    def sweep(self) -> Path | None:
        """The sweep to which all runs belong; None if there is no such sweep."""
        alone = self.sweeps[0] if len(self.sweeps) == 1 else None
        return alone if alone and all(alone in run.folder.path.parents for run in self.runs) else None


def read_runs(folders: Sequence[Path]) -> RunCollection:
    """Read all runs in and below these folders, each once. Raises LabError for a folder or runs that do not exist."""
    for folder in folders:
        if not folder.is_dir():
            raise LabError(f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}")
    found = runs.find_runs(folders)
    collection = RunCollection(sweeps=found.sweeps)
    collection.problems += [(str(runs.display_path(folder)), "cannot be read") for folder in found.unreadable]
    jobs = _read_jobs(found, collection)
    for run in found.runs:
        try:
            collection.runs.append(_read_run(run, jobs.get(run.path.resolve()) if jobs else None))
        except LabError as error:
            collection.problems.append((str(runs.display_path(run.path)), f"damaged: {error}"))
    if not collection.runs and not collection.problems:
        raise LabError(
            f"no run was found in {', '.join(map(str, folders))}: name run or sweep folders, or a folder above them"
        )
    return collection


def _read_jobs(found: runs.FoundRuns, collection: RunCollection) -> dict[Path, dict[str, Any]]:
    """Return the row of each job in summary.json, with the folder of the sweep, by its resolved run folder.

    Jobs without a run folder, and sweeps that cannot be read, are added to the problems of the collection.
    """
    rows_of_runs: dict[Path, dict[str, Any]] = {}
    run_folders: set[Path] = set()
    for sweep in dict.fromkeys([*found.sweeps, *(run.path.parent for run in found.runs)]):
        try:
            rows = read_summary_rows(sweep)
        except LabError as error:
            collection.problems.append((str(runs.display_path(sweep)), f"damaged: {error}"))
            continue
        if rows and not run_folders:
            run_folders = {run.path.resolve() for run in found.runs}
        for row in rows:
            path = (sweep / row["folder"]).resolve() if row.get("folder") else None
            if path is not None and path in run_folders:
                rows_of_runs[path] = row | {"sweep": sweep}
            elif sweep in found.sweeps:  # skipped if the user named a single run of the sweep
                name = f"{runs.display_path(sweep)}: job {row['job']} ({' '.join(row['overrides'])})"
                collection.problems.append((name, _job_problem(row) or "its folder is gone"))
    return rows_of_runs


def _job_problem(job: dict[str, Any]) -> str:
    """Format the state of a job and its reason; "" if the job is done."""
    if job["state"] is State.DONE:
        return ""
    return f"{job['state']}: {job['reason']}" if job.get("reason") else str(job["state"])


def _read_run(folder: RunFolder, job: dict[str, Any] | None) -> Run:
    """Read a run, and take its overrides from the row of its job, if there is one."""
    config, recorded = folder.read_unchecked_config(), (None, None) if job is None else (job["overrides"], job["sweep"])
    try:
        metrics = _check_metrics(json.loads(read_text(folder.metrics)))
        return Run(folder, config, metrics, folder.metrics.stat().st_mtime, "", *recorded)
    except FileNotFoundError:
        problem = (job and _job_problem(job)) or _progress(folder, config)
    except (OSError, ValueError, RecursionError) as error:
        problem = f"damaged: {folder.metrics.name} ({error})"
    return Run(folder, config, {}, folder.config.stat().st_mtime, problem, *recorded)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = prefix + (str(key) if str(key).isprintable() else json.dumps(str(key)))
        if isinstance(value, dict):
            flat |= _flatten(value, f"{name}.")
        elif isinstance(value, list) or (isinstance(value, str) and not value.isprintable()):
            flat[name] = json.dumps(value, separators=(",", ":"))
        else:
            flat[name] = value
    return flat


def _progress(folder: RunFolder, config: dict[str, Any]) -> str:
    epochs = 0
    with suppress(OSError):
        epochs = len(read_bytes(folder.history).splitlines()) - 1
    max_epochs = config.get("trainer", {}).get("max_epochs")
    return f"unfinished: {max(0, epochs)} of {max_epochs} epochs (still running, or it was killed)"


def read_columns(file: Path, wanted: Sequence[str]) -> dict[str, Column]:
    """Read the wanted columns that a CSV file has; empty and infinite cells become NaN. Raises LabError for damage."""
    try:
        return _parse_columns(read_text(file), wanted)
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read {file} ({error})") from error


def _parse_columns(table: str, wanted: Sequence[str]) -> dict[str, Column]:
    head, *rows = table.splitlines()
    names = parse_row(head)
    if not {*map(str.count, rows, repeat(","))} <= {len(names) - 1}:
        raise ValueError("a line is cut off")
    cells = ",".join(rows).split(",") if rows else []
    columns = {name: cells[names.index(name) :: len(names)] for name in wanted if name in names}
    return {
        name: _parse_counts(name, ",".join(texts)) if name in _COUNTS else _parse_column(name, texts)
        for name, texts in columns.items()
    }


def parse_row(line: str) -> list[str]:
    """Return the cells of one line of a CSV file."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:  # a damaged file
        return line.split(",")


def _check_metrics(content: Any) -> dict[str, float]:
    """Validate the content of metrics.json and return its values, without null, which stands for NaN and infinity.

    Raises ValueError if it is not a mapping or is empty, a name is not printable, or a value is impossible.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError("it contains no metrics")
    for name in content:
        if not str(name).isprintable():
            raise ValueError(f"{ascii(name)[:80]} is not the name of a value")
    return {name: _check_value(name, value) for name, value in content.items() if value is not None}


def _check_value(name: str, value: Any) -> float:
    """Convert a value to float. Raises ValueError if a metric with this name cannot have it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r:.40}, not a number")  # noqa: TRY004 -- the content of a file is wrong
    if not abs(value) < 1e100:  # NaN, or so large that the statistics would overflow
        raise ValueError(f"{name} is {value!r:.40}, not a finite number below 1e100")
    if name in SHARES and not -1e-6 <= value <= 1 + 1e-6:
        raise ValueError(f"{name} is {value!r:.40}, not between 0 and 1")
    return float(value)


def _parse_column(name: str, texts: Sequence[str]) -> Column:
    """Convert all cells of a column as `_parse_cell` does, in a fraction of its time if all of them are valid."""
    given = [*filter(None, texts)]
    values = np.fromiter(map(float, given), float, len(given))
    is_total = name in _COUNTS or name == "seconds"
    low, high = (-1e-6, 1 + 1e-6) if name in SHARES else (0, 1e14) if is_total else (-1e99, 1e99)
    is_valid = not given or bool(low <= values.min() and values.max() <= high)
    if is_total:
        is_valid &= len(given) == len(texts) and (name == "seconds" or bool((values == np.floor(values)).all()))
    if not is_valid:  # or close to a limit
        return np.array([_parse_cell(name, text) for text in texts])
    if len(given) == len(texts):
        return values
    column = np.full(len(texts), nan)
    column[[*compress(count(), texts)]] = values
    return column


@lru_cache(maxsize=4)
def _parse_counts(name: str, texts: str) -> Column:
    """Parse a column of counts, which many runs have in common."""
    return _parse_column(name, texts.split(",") if texts else [])


def _parse_cell(name: str, text: str) -> float:
    """Convert a cell of history.csv or timing.csv to float, NaN if it is empty or infinite. Raises ValueError."""
    value = float(text or "nan")
    if name in _COUNTS and not (0 <= value < 1e15 and value.is_integer()):
        raise ValueError(f"{name} is {text or 'empty'}, not a count")
    if name == "seconds" and not 0 <= value < 1e15:
        raise ValueError(f"{name} is {text or 'empty'}, not a duration")
    return _check_value(name, value) if isfinite(value) else nan
