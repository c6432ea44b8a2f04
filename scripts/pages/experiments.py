"""Run experiments and record them: results in runs.csv, definitions and conditions in campaign.json."""

import csv
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from losslab.errors import LabError
from losslab.io.tables import write_csv
from losslab.study.settings import Settings, expand_groups
from pages.freshness import Fingerprint, Staleness

ROOT = Path(__file__).resolve().parents[2]
RUN_OPTIONS = ("trainer=cpu",)
"""Options added to each command when it is run."""
_SWEEP_OPTIONS = (*RUN_OPTIONS, "hydra.launcher.n_jobs=2")
_COLUMNS = ("experiment", "label", "seed", "metric", "value")

Records = dict[str, dict[str, Any]]
"""Experiment name → its definition and hashes when it was run, the versions, and its duration in seconds."""


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
        """The commands, and what else of the page determines the results; if it changes, the results are stale."""

    @property
    def resumable(self) -> bool:
        """Whether `run` continues what an interrupted call has left in its working directory."""

    def configurations(self) -> list[dict[str, Any]]:
        """Compose the configurations of all runs, one of those that differ only in the seed."""

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
        fingerprint = fingerprint_of(experiment)
        start = perf_counter()
        with working_directory(experiment, folder.name, fingerprint) as work_dir:
            new = experiment.run(work_dir, folder)
        record = {"conditions": conditions(), "seconds": round(perf_counter() - start)} | experiment.definition
        results = [result for result in read_results(folder) if result.experiment != experiment.name] + new
        rows = ((*astuple(result)[:-1], format_value(result.value)) for result in results)
        write_csv(folder / "runs.csv", _COLUMNS, rows)
        write_records(folder, read_records(folder) | {experiment.name: record | fingerprint.record()})
        print(f"{experiment.name}: {record['seconds']} s", flush=True)


@contextmanager
def working_directory(experiment: Experiment, page: str, fingerprint: Fingerprint) -> Iterator[Path]:
    """Provide a working directory, which is deleted afterwards.

    That of a resumable experiment is outputs/pages/PAGE/NAME. It is kept after an interruption, and used again unless
    its commands or what its runs depend on have changed since.
    """
    if not experiment.resumable:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    work_dir = ROOT / "outputs" / "pages" / page / experiment.name
    state = json.dumps(experiment.definition | fingerprint.of_runs().record(), indent=2)
    file = work_dir / "experiment.json"
    if not file.is_file() or file.read_text() != state:
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir(parents=True)
        file.write_text(state)
    yield work_dir
    shutil.rmtree(work_dir)


def fingerprint_of(experiment: Experiment) -> Fingerprint:
    """Compute the present fingerprint of an experiment."""
    return Fingerprint.of(experiment.configurations())


def format_value(value: float) -> str:
    """Format a value as in runs.csv."""
    return f"{value:.15g}"


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


def write_records(folder: Path, records: Records) -> None:
    """Write the records of all experiments."""
    (folder / "campaign.json").write_text(json.dumps(records, indent=2, ensure_ascii=False) + "\n")


def staleness(experiments: Iterable[Experiment], records: Records) -> dict[str, Staleness]:
    """Say for each experiment what has changed since it was recorded."""
    return {
        experiment.name: Staleness.of(experiment.definition, records.get(experiment.name), fingerprint_of(experiment))
        for experiment in experiments
    }


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


def expand(command: str) -> list[list[str]]:
    """List the overrides of the runs of a command `python train.py ...`, with only the first of its seeds."""
    arguments = [each for each in shlex.split(command)[2:] if each != "-m" and not each.startswith("seed=")]
    return [[*job, *RUN_OPTIONS] for job in expand_groups(arguments, Settings(tune=()))]


def run_sweep(command: str, work_dir: Path) -> Path:
    """Run the command of a sweep, and return the sweep folder.

    Raises:
        LabError: the command failed.
    """
    before = set(work_dir.glob("outputs/sweep-*"))
    run_command(command, work_dir, _SWEEP_OPTIONS)
    (folder,) = set(work_dir.glob("outputs/sweep-*")) - before
    return folder


def run_command(
    command: str, work_dir: Path, options: tuple[str, ...] = RUN_OPTIONS, *, show_output: bool = False
) -> None:
    """Run a command `python SCRIPT ...` or `losslab VERB ...` with additional options.

    Raises:
        LabError: the command failed.
    """
    program, first, *arguments = shlex.split(command)
    start = ["-m", "losslab.cli", first] if program == "losslab" else [str(ROOT / first)]
    done = subprocess.run(
        [sys.executable, *start, *arguments, *options],
        cwd=work_dir,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=False,
        capture_output=not show_output,
        text=True,
    )
    if done.returncode:
        output = "" if show_output else f":\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise LabError(f"{command} failed{output}")
