"""Runs the commands of the rows as they are printed, and keeps what each run gave."""

import csv
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from choosings.measures import measure
from choosings.row import BARE, Row, Trial
from losslab.errors import LabError

ROOT = Path(__file__).resolve().parents[2]
JOBS = 2
_WHERE = ("trainer=cpu", f"hydra.launcher.n_jobs={JOBS}")
"""Added to each command: where it runs, two at a time."""


@dataclass(frozen=True)
class Result:
    """One number of one run."""

    row: str
    label: str
    seed: int
    metric: str
    value: float


def conduct(rows: Iterable[Row], folder: Path) -> None:
    """Run the commands of some rows, and renew what runs.csv and campaign.json of a folder say of them."""
    folder.mkdir(exist_ok=True)
    for row in rows:
        start = perf_counter()
        new = _conducted(row)
        facts = {"conditions": conditions(), "seconds": round(perf_counter() - start), "commands": row.commands}
        _write([result for result in read(folder)[0] if result.row != row.name] + new, folder)
        known = read(folder)[1] | {row.name: facts}
        (folder / "campaign.json").write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n")
        print(f"{row.name}: {facts['seconds']} s", flush=True)


def _write(results: list[Result], folder: Path) -> None:
    with (folder / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Result)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(result) | {"value": f"{result.value:.6g}"} for result in results)


def read(folder: Path) -> tuple[list[Result], dict[str, Any]]:
    """All numbers, and by row's name how they came about."""
    if not (folder / "runs.csv").is_file():
        return [], {}
    with (folder / "runs.csv").open(newline="") as lines:
        next(lines)
        rows = [(row, label, int(seed), metric, float(value)) for row, label, seed, metric, value in csv.reader(lines)]
    known = folder / "campaign.json"
    return [Result(*row) for row in rows], json.loads(known.read_text()) if known.is_file() else {}


def conditions() -> str:
    """What the runs were made with."""
    names = ("torch", "lightning", "scikit-learn")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPU cores, Python {platform.python_version()}, {versions}"


def _conducted(row: Row) -> list[Result]:
    with tempfile.TemporaryDirectory() as place:
        if row.before:
            _run(row.before, ("trainer=cpu",), Path(place))
        return [result for trial in row.trials for result in _tried(row, trial, Path(place))]


def _tried(row: Row, trial: Trial, place: Path) -> list[Result]:
    """The results of one sweep in a working directory of its own."""
    before = set(place.glob("outputs/sweep-*"))
    _run(trial.command, _WHERE, place)
    (sweep,) = set(place.glob("outputs/sweep-*")) - before
    jobs = json.loads((sweep / "summary.json").read_text())["jobs"]
    results = []
    for job in jobs:
        given = dict(override.split("=", 1) for override in job["overrides"])
        label = trial.label or label_of(row, job["overrides"])
        for metric in row.metrics:
            value = measure(metric, sweep / job["folder"], job["metrics"])
            results.append(Result(row.name, label, int(given["seed"]), metric, value))
    return results


def label_of(row: Row, overrides: list[str]) -> str:
    """What is said in these overrides and not alike in all sweeps of the row that have no label of their own."""
    sweeps = [trial.settings for trial in row.trials if not trial.label]
    shared = set.intersection(*map(set, sweeps)) if len(sweeps) > 1 else set()
    every = [given for settings in sweeps for given in settings]
    own = [given for given in every if given not in shared] if len(sweeps) > 1 else []
    swept = [given for given in every if "," in given and "[" not in given]
    keys = {given.partition("=")[0] for given in (*own, *swept)} | {"loss"}
    unsaid = shared.union(BARE)
    return " ".join(given for given in overrides if given.partition("=")[0] in keys and given not in unsaid)


def _run(command: str, where: tuple[str, ...], place: Path) -> None:
    _, script, *arguments = shlex.split(command)
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments, *where], cwd=place, check=False, capture_output=True, text=True
    )
    if done.returncode:
        message = f"{command} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise LabError(message)
