"""Run experiments and record them: results in runs.csv, definitions and conditions in campaign.json."""

import csv
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from losslab.errors import LabError
from losslab.io.tables import write_csv

ROOT = Path(__file__).resolve().parents[2]
RUN_OPTIONS = ("trainer=cpu",)
"""Options added to each command when it is run."""
_SWEEP_OPTIONS = (*RUN_OPTIONS, "hydra.launcher.n_jobs=2")
_COLUMNS = ("experiment", "label", "seed", "metric", "value")

Records = dict[str, dict[str, Any]]
"""Experiment name → its definition when it was run, the versions, and its duration in seconds."""


@dataclass(frozen=True)
class Result:
    """Value of one metric of one run."""

    experiment: str
    label: str
    seed: int
    metric: str
    value: float


class Experiment(Protocol):
    """One or more commands whose results are shown on a page."""

    @property
    def name(self) -> str:
        """Name on the command line, and anchor of the section on the page."""

    @property
    def definition(self) -> dict[str, Any]:
        """Everything that determines the results; if it changes, the recorded results are stale."""

    def run(self, work_dir: Path, results_dir: Path) -> list[Result]:
        """Run the commands.

        Args:
            work_dir: empty working directory for the commands.
            results_dir: folder of the page's results, for additional files.
        """


def run_experiments(experiments: Iterable[Experiment], folder: Path) -> None:
    """Run experiments one after the other; each replaces its earlier results as soon as it has finished."""
    folder.mkdir(exist_ok=True)
    for experiment in experiments:
        start = perf_counter()
        with tempfile.TemporaryDirectory() as work_dir:
            new = experiment.run(Path(work_dir), folder)
        record = {"conditions": conditions(), "seconds": round(perf_counter() - start)} | experiment.definition
        results = [result for result in read_results(folder) if result.experiment != experiment.name] + new
        rows = ((*astuple(result)[:-1], f"{result.value:.15g}") for result in results)
        write_csv(folder / "runs.csv", _COLUMNS, rows)
        records = read_records(folder) | {experiment.name: record}
        (folder / "campaign.json").write_text(json.dumps(records, indent=2, ensure_ascii=False) + "\n")
        print(f"{experiment.name}: {record['seconds']} s", flush=True)


def read_results(folder: Path) -> list[Result]:
    """Read all recorded results; an empty list if there is no file."""
    file = folder / "runs.csv"
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        _, *rows = csv.reader(lines)
    return [
        Result(experiment, label, int(seed), metric, float(value)) for experiment, label, seed, metric, value in rows
    ]


def read_records(folder: Path) -> Records:
    """Read the records of all experiments; an empty dictionary if there is no file."""
    file = folder / "campaign.json"
    records: Records = json.loads(file.read_text()) if file.is_file() else {}
    return records


def find_stale(experiments: Iterable[Experiment], records: Records) -> list[str]:
    """List the experiments whose definition differs from the recorded one, or that were never run."""
    return [
        experiment.name
        for experiment in experiments
        if any(records.get(experiment.name, {}).get(key) != value for key, value in experiment.definition.items())
    ]


def conditions() -> str:
    """Describe the conditions of a run: date, number of cores and versions."""
    names = ("torch", "lightning", "scikit-learn")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPU cores, Python {platform.python_version()}, {versions}"


def summarize_conditions(records: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Summarise the conditions of all records and their total duration in minutes, for the text of a page."""
    return {
        "conditions": "; ".join(dict.fromkeys(record["conditions"] for record in records)),
        "minutes": f"{sum(record['seconds'] for record in records) / 60:.0f}",
    }


def run_sweep(command: str, work_dir: Path) -> Path:
    """Run the command of a sweep, and return the sweep folder.

    Raises:
        LabError: the command failed.
    """
    before = set(work_dir.glob("outputs/sweep-*"))
    run_command(command, work_dir, _SWEEP_OPTIONS)
    (folder,) = set(work_dir.glob("outputs/sweep-*")) - before
    return folder


def run_command(command: str, work_dir: Path, options: tuple[str, ...] = RUN_OPTIONS) -> None:
    """Run a command `python SCRIPT ...` with additional options.

    Raises:
        LabError: the command failed.
    """
    _, script, *arguments = shlex.split(command)
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments, *options],
        cwd=work_dir,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise LabError(f"{command} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
