"""Runs what a page shows, and keeps what each run gave in runs.csv and how it came about in campaign.json."""

import csv
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, TypeVar

from losslab.errors import LabError

ROOT = Path(__file__).resolve().parents[2]
JOBS = 2
HERE = ("trainer=cpu",)
"""Added to each command: where it runs."""
_SWEEP = (*HERE, f"hydra.launcher.n_jobs={JOBS}")


@dataclass(frozen=True)
class Result:
    """One number of one run."""

    row: str
    label: str
    seed: int
    metric: str
    value: float


class Subject(Protocol):
    """What a page shows by runs of its own."""

    @property
    def name(self) -> str:
        """Of its heading's anchor and of its runs."""

    @property
    def said(self) -> dict[str, Any]:
        """What decides its numbers. Where that is not what it was when they were made, they are stale."""


Shown = TypeVar("Shown", bound=Subject)


def conduct(subjects: Iterable[Shown], folder: Path, results_of: Callable[[Shown, Path], list[Result]]) -> None:
    """Run some subjects, and renew what runs.csv and campaign.json of a folder say of them.

    Args:
        subjects: to run, one after the other.
        folder: of the two files.
        results_of: runs a subject in an empty working directory.
    """
    folder.mkdir(exist_ok=True)
    for subject in subjects:
        start = perf_counter()
        with tempfile.TemporaryDirectory() as place:
            new = results_of(subject, Path(place))
        facts = {"conditions": conditions(), "seconds": round(perf_counter() - start)} | subject.said
        _write([result for result in read(folder)[0] if result.row != subject.name] + new, folder)
        known = read(folder)[1] | {subject.name: facts}
        (folder / "campaign.json").write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n")
        print(f"{subject.name}: {facts['seconds']} s", flush=True)


def stale(subjects: Iterable[Subject], facts: dict[str, Any]) -> list[str]:
    """The names of those whose numbers were made otherwise than they would be now."""
    return [one.name for one in subjects if one.said != {key: facts.get(one.name, {}).get(key) for key in one.said}]


def _write(results: list[Result], folder: Path) -> None:
    with (folder / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Result)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(result) | {"value": f"{result.value:.15g}"} for result in results)


def read(folder: Path) -> tuple[list[Result], dict[str, Any]]:
    """All numbers, and by subject's name how they came about."""
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


def sweep(command: str, place: Path) -> Path:
    """Run the command of a sweep in a working directory → the sweep's folder.

    Raises:
        LabError: it failed.
    """
    before = set(place.glob("outputs/sweep-*"))
    run(command, _SWEEP, place)
    (folder,) = set(place.glob("outputs/sweep-*")) - before
    return folder


def run(command: str, where: tuple[str, ...], place: Path) -> None:
    """Run `python SCRIPT ...` in a working directory, with some arguments more.

    Raises:
        LabError: it failed.
    """
    _, script, *arguments = shlex.split(command)
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments, *where], cwd=place, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise LabError(f"{command} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
