"""The existing runs of a sweep, which its jobs take over, and the commands that resume. Imports no torch."""

import contextlib
import json
import logging
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from losslab import runs
from losslab.errors import LabError
from losslab.io.metric_names import MONITORED, direction
from losslab.runs import RunFolder, trust
from losslab.runs.config import exact_identity, identity
from losslab.runs.sweep_summary import State, read_summary_rows
from losslab.sweep.state import Job, Sweep

logger = logging.getLogger("losslab")

FLAGS = ("-m", "--multirun")
_COMPARED_SWEEPS = 20
"""The number of earlier sweeps that are compared with a new one, the newest first."""
_DEPENDENCIES = (
    "losslab.",
    "torch.",
    "torchvision.",
    "torchmetrics.",
    "lightning.pytorch.callbacks.",
    "lightning.Trainer",
)
"""Prefixes of names that need no trust; to check further names would import their modules."""


def resume_command(folder: Path, config: Any) -> str:
    """Return the command that resumes the run or sweep in a folder, including trust=[...] for its packages."""
    packages = trust.packages_to_trust(config)
    trusted = [f"trust=[{','.join(packages)}]"] if packages else []
    return shlex.join([*_program(), f"resume={runs.display_path(folder)}", *trusted])


def completing_command(sweep: Sweep) -> str:
    """Return the command that completes a sweep."""
    if not sweep.all_known:
        return repeated_command(sweep.folder, sweep.command)
    targets = {str(value) for job in sweep.jobs for key, value in trust.leaves(job.config) if key.endswith("_target_")}
    foreign = [{"_target_": target} for target in sorted(targets) if not target.startswith(_DEPENDENCIES)]
    return resume_command(sweep.folder, foreign)


def repeated_command(folder: Path, command: Sequence[str]) -> str:
    """Return the original command of a sweep, with its folder as run_dir."""
    left_out = ("run_dir", "hydra.sweep.dir", "trust")
    kept = [part for part in command if part.lstrip("+").partition("=")[0] not in left_out]
    path = str(runs.display_path(folder))
    if not re.fullmatch(r"[\w./-]+", path, re.ASCII):  # quoted by the rules of Hydra
        path = "'" + path.replace("\\'", "\\\\'").replace("'", "\\'") + "'"
    return shlex.join([*_program(), *kept, f"run_dir={path}"])


def _program() -> list[str]:
    return ["python", sys.argv[0]] if Path(sys.argv[0]).name == "train.py" else ["losslab", "train"]


def refuse_other_keys(keys: Iterable[str], allowed: Sequence[str], purpose: str, alternative: str) -> None:
    """Refuse settings next to resume= that would change the run or sweep, and suggest the alternative.

    Raises:
        LabError: a key is not allowed.
    """
    other = next((key for key in keys if key not in allowed), None)
    if other is not None:
        raise LabError(
            f"resume= {purpose} with its recorded settings; {other} cannot be changed (only {', '.join(allowed)} can): "
            f"leave it out, or {alternative}"
        )


def read_command(sweep: Path) -> list[str]:
    """Read the command line of a sweep from summary.json.

    Raises:
        LabError: the file does not record it.
    """
    summary = sweep / runs.SUMMARY
    try:
        command = json.loads(runs.read_text(summary))["command"]
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        command = None
    if not isinstance(command, list) or not all(isinstance(part, str) for part in command):
        raise LabError(f"{summary} does not record the command of the sweep: type it again with run_dir={sweep}")
    return command


def find_unfinished(folder: Path, command: Sequence[str]) -> Path | None:
    """Find the newest sweep of the same command, if unfinished, among sweeps with default names next to this folder."""
    for other in sorted(folder.parent.glob("sweep-*"), reverse=True)[:_COMPARED_SWEEPS]:
        try:
            if other != folder and read_command(other) == list(command):
                states = {job["state"] for job in read_summary_rows(other)}
                return other if states & {State.FAILED, State.INTERRUPTED} else None
        except (LabError, OSError):  # a damaged sweep cannot be completed
            continue
    return None


@dataclass
class ExistingRun:
    """A run in the folder of a sweep."""

    run: RunFolder
    exact_identity: str
    """See `losslab.runs.config.exact_identity`."""
    number: int | None
    """The number of its job; None if not recorded."""
    seconds: float | None
    """The duration of the run; None if not recorded because the sweep was killed."""

    @property
    def metrics(self) -> dict[str, float] | None:
        """The final metrics; None if the run is not finished."""
        with contextlib.suppress(OSError, ValueError):
            metrics = json.loads(runs.read_text(self.run.metrics))
            return metrics if isinstance(metrics, dict) else None
        return None


class ExistingRuns:
    """The runs in the folder of a sweep. Each run is taken over by at most one job.

    Args:
        sweep: the folder of the sweep.

    Raises:
        LabError: the summary of the sweep is damaged.
    """

    def __init__(self, sweep: Path) -> None:
        rows = read_summary_rows(sweep, ended=True)
        self._root = sweep.resolve()
        named = {(sweep / row["folder"]).resolve(): row for row in rows if row.get("folder")}
        self._rows = {path: row for path, row in named.items() if self._root in path.parents}
        self._runs: defaultdict[str, list[ExistingRun]] = defaultdict(list)
        self._numbers: dict[int, Path | None] = {}
        for path in sweep.iterdir() if sweep.is_dir() else ():
            if path.is_dir() and _number(path) is not None:
                self._numbers[_number(path) or 0] = path.resolve()
        for run in runs.find_runs([path for path in (sweep, *self._rows) if path.is_dir()]).runs:
            try:
                self._add(run)
            except LabError as error:
                logger.warning("not taken over: %s", error)

    def _add(self, run: RunFolder) -> None:
        config, path = run.read_unchecked_config(), run.path.resolve()
        if self._root not in path.parents:  # by a link
            raise LabError(f"{run.path} is a link out of the folder of the sweep")
        row = self._rows.get(path, {})
        number = row.get("job", _number(path))
        seconds = row.get("seconds") if row.get("state") is State.DONE else None
        self._runs[identity(config)].append(ExistingRun(run, exact_identity(config), number, seconds))
        if number is not None:
            self._numbers.setdefault(number, path)

    @property
    def remaining_rows(self) -> list[dict[str, Any]]:
        """The rows of the summary whose runs exist and were not taken over."""
        return [row for path, row in self._rows.items() if path.is_dir()]

    def take_run(self, config: Mapping[str, Any]) -> ExistingRun | None:
        """Return and remove the run with this resolved configuration; None if there is none left."""
        same = self._runs.get(identity(config))
        if not same:
            return None
        text = exact_identity(config)
        run = same.pop(next((index for index, each in enumerate(same) if each.exact_identity == text), 0))
        self._rows.pop(run.run.path.resolve(), None)
        return run

    def number(self, wanted: int, folder: Path | None) -> int:
        """Return a number for a job: the wanted number, or the first free number if another folder has it.

        Args:
            wanted: the index of the job, or its earlier number.
            folder: the folder of the job with this number; None if no existing folder may be used.
        """
        path = None if folder is None else folder.resolve()
        if wanted in self._numbers and (path is None or self._numbers[wanted] != path):
            wanted = next(free for free in count() if free not in self._numbers)
        self._numbers[wanted] = None  # reserved
        if path is not None:
            self._rows.pop(path, None)
        return wanted


def take_over(
    existing: ExistingRuns, jobs: Sequence[Job], sweep: Sweep, prepare: Callable[[Job, Sweep, Path | None], None]
) -> None:
    """Let jobs take over the existing runs with their configurations: finished runs are done, others are resumed.

    A job keeps its number and its folder unless another run has them.
    """
    for job in jobs:
        run = None if job.config is None else existing.take_run(job.config)
        if job.config is not None and run is not None:
            wanted = job.number if run.number is None else run.number
            job.number = existing.number(wanted, run.run.path)
            prepare(job, sweep, run.run.path)
            job.folder = run.run.path
            _restore(job, run)
            continue
        folder = None if job.config is None else Path(job.config["run_dir"])
        free = folder if folder is not None and not RunFolder(folder).config.exists() else None
        number = existing.number(job.number, free)
        if number != job.number:
            job.number = number
            prepare(job, sweep, None)


def _restore(job: Job, existing: ExistingRun) -> None:
    """Copy the state and results of the existing run that a job takes over. The value of its task is a metric."""
    metrics = existing.metrics
    job.done_before, job.resumes = metrics is not None, metrics is None
    if metrics is None or job.config is None:
        return
    monitored = next((name for name in MONITORED if name in metrics), None)
    if monitored is not None:
        job.progress |= {"metric": monitored, "mode": direction(monitored)}
    job.state = State.DONE
    job.value = metrics.get(str(job.config["optimized_metric"] or monitored))
    job.seconds = existing.seconds if existing.seconds is not None else _epoch_seconds(existing.run)


def _number(path: Path) -> int | None:
    start = path.name.partition("-")[0]
    return int(start) if start.isdecimal() else None


def _epoch_seconds(run: RunFolder) -> float:
    """Return the total seconds of all epochs of a run."""
    with contextlib.suppress(OSError, ValueError):
        return sum(float(line.rpartition(",")[2]) for line in runs.read_text(run.timing).splitlines()[1:])
    return 0.0
