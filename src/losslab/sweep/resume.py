"""Matches the jobs of a sweep with existing runs, and builds the commands that resume them. Imports no torch."""

import contextlib
import logging
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from losslab import runs
from losslab.errors import LabError, NonFiniteError
from losslab.io.metric_names import MONITORED, direction
from losslab.runs import RunFolder
from losslab.runs.config import exact_identity, identity
from losslab.runs.sweep_summary import State, read_command, read_summary_rows
from losslab.sweep.fusing import recorded_groups
from losslab.sweep.state import Job, Sweep, read_metrics

logger = logging.getLogger("losslab")

FLAGS = ("-m", "--multirun")
"""The flags that make Hydra run a sweep."""


def resume_command(folder: Path, packages: Sequence[str]) -> str:
    """Return the command that resumes the run or sweep in a folder, with trust=[...] for these packages."""
    trusted = [f"trust=[{','.join(packages)}]"] if packages else []
    return shlex.join([*_program(), f"resume={runs.display_path(folder)}", *trusted])


def completing_command(sweep: Sweep) -> str:
    """Return the command that completes a sweep: resume=FOLDER, or for a search its original command."""
    if sweep.is_search:
        return repeated_command(sweep.folder, sweep.command)
    return resume_command(sweep.folder, sweep.packages_to_trust)


def repeated_command(folder: Path, command: Sequence[str]) -> str:
    """Return the original command of a sweep, with its current folder as run_dir and without trust=[...]."""
    left_out = ("run_dir", "hydra.sweep.dir", "trust")
    kept = [part for part in command if part.lstrip("+").partition("=")[0] not in left_out]
    path = str(runs.display_path(folder))
    if not re.fullmatch(r"[\w./-]+", path, re.ASCII):  # quoted by the rules of Hydra
        path = "'" + path.replace("\\'", "\\\\'").replace("'", "\\'") + "'"
    return shlex.join([*_program(), *kept, f"run_dir={path}"])


def _program() -> list[str]:
    return ["python", sys.argv[0]] if Path(sys.argv[0]).name == "train.py" else ["losslab", "train"]


def find_unfinished(folder: Path, command: Sequence[str]) -> Path | None:
    """Find the newest sweep next to `folder` that has the same command; None if there is none or it is finished.

    Only the 20 newest folders with a default name (sweep-TIMESTAMP) are read.
    """
    for other in sorted(folder.parent.glob("sweep-*"), reverse=True)[:20]:
        with contextlib.suppress(LabError, OSError):  # a damaged sweep cannot be completed
            if other != folder and read_command(other) == list(command):
                states = {job["state"] for job in read_summary_rows(other)}
                return other if states & {State.FAILED, State.INTERRUPTED} else None
    return None


class ExistingRun(NamedTuple):
    """A run in the folder of a sweep, which a job with the same configuration may take over."""

    run: RunFolder
    exact_identity: str
    """The value of `losslab.runs.config.exact_identity` for the configuration of the run."""
    number: int | None
    """The number of the job that started the run; None if the number is not recorded."""
    seconds: float | None
    """The duration of the run; None if it is not recorded because the sweep was killed."""
    divergence: str
    """Why the run diverged, if it did and need not be trained again; otherwise ""."""


class ExistingRuns:
    """The runs in the folder of a sweep. Each run is taken over by at most one job.

    Args:
        sweep: folder of the sweep.
        keeps_diverged: whether runs that diverged count as ended, as in a study; otherwise they are trained again.

    Raises:
        LabError: the summary of the sweep is damaged.
    """

    def __init__(self, sweep: Path, *, keeps_diverged: bool = False) -> None:
        self._root, self._keeps_diverged = sweep.resolve(), keeps_diverged
        self.groups = recorded_groups(sweep)
        """The groups of jobs that trained as one, as recorded before this command writes jobs.json."""
        rows = read_summary_rows(sweep, ended=True)
        named = {(sweep / row["folder"]).resolve(): row for row in rows if row.get("folder")}
        self._rows = {path: row for path, row in named.items() if self._root in path.parents}
        self._runs: defaultdict[str, list[ExistingRun]] = defaultdict(list)
        self._numbers: dict[int, Path | None] = {}
        """Maps each number in use to the folder that has it, or to None if a job of this command has reserved it."""
        for path in sweep.iterdir():
            number = _job_number(path)
            if number is not None and path.is_dir():
                self._numbers[number] = path.resolve()
        for run in runs.find_runs([sweep, *self._rows]).runs:
            try:
                self._add(run)
            except LabError as error:
                logger.warning("not taken over: %s", error)

    def _add(self, run: RunFolder) -> None:
        config, path = run.read_unchecked_config(), run.path.resolve()
        if self._root not in path.parents:
            raise LabError(f"{run.path} is a link out of the folder of the sweep")
        row = self._rows.get(path, {})
        number = row.get("job", _job_number(path))
        reason = str(row.get("reason")) if self._keeps_diverged and row.get("state") is State.FAILED else ""
        divergence = reason if NonFiniteError.is_message(reason) else ""
        seconds = row.get("seconds") if divergence or row.get("state") is State.DONE else None
        self._runs[identity(config)].append(ExistingRun(run, exact_identity(config), number, seconds, divergence))
        if number is not None:
            self._numbers.setdefault(number, path)

    @property
    def remaining_rows(self) -> list[dict[str, Any]]:
        """The rows of summary.json for runs that exist and that no job took over."""
        return [row for path, row in self._rows.items() if path.is_dir()]

    def take_run(self, config: Mapping[str, Any]) -> ExistingRun | None:
        """Return a run with this resolved configuration, and remove it from these runs; None if there is none left."""
        same = self._runs.get(identity(config))
        if not same:
            return None
        text = exact_identity(config)
        run = same.pop(next((index for index, each in enumerate(same) if each.exact_identity == text), 0))
        self._rows.pop(run.run.path.resolve(), None)
        return run

    def reserve_number(self, wanted: int, folder: Path | None) -> int:
        """Reserve and return a number for a job: `wanted`, or the first free number if another folder has `wanted`.

        `folder` is the folder that the job will use; None if the job will get a new folder.
        """
        path = None if folder is None else folder.resolve()
        if wanted in self._numbers and (path is None or self._numbers[wanted] != path):
            wanted = next(free for free in count() if free not in self._numbers)
        self._numbers[wanted] = None
        if path is not None:
            self._rows.pop(path, None)
        return wanted


def take_over(
    existing: ExistingRuns, jobs: Sequence[Job], sweep: Sweep, prepare: Callable[[Job, Sweep, Path | None], None]
) -> None:
    """Let each job take over an existing run with its configuration. If that run is finished, the job is done.

    Otherwise the job will resume the run. A job that takes over a run gets the number and folder of the run; any other
    job keeps its own unless they are in use. `prepare` is called for each job whose number or folder may have changed.
    """
    for job in jobs:
        run = None if job.config is None else existing.take_run(job.config)
        if run is not None:
            job.number = existing.reserve_number(job.number if run.number is None else run.number, run.run.path)
            prepare(job, sweep, run.run.path)
            job.folder = run.run.path
            _restore(job, run)
            continue
        folder = None if job.config is None else Path(job.config["run_dir"])
        if folder is not None and RunFolder(folder).config.exists():  # the run of another job
            folder = None
        number = existing.reserve_number(job.number, folder)
        if number != job.number:
            job.number = number
            prepare(job, sweep, None)


def _restore(job: Job, existing: ExistingRun) -> None:
    """Set the state and results of a job to those of the existing run that it takes over."""
    metrics = read_metrics(existing.run)
    if metrics is None and existing.divergence:
        job.reused, job.state, job.reason = True, State.FAILED, existing.divergence
        job.seconds = existing.seconds or 0.0
        return
    job.reused, job.resumes = metrics is not None, metrics is None
    if metrics is None or job.config is None:
        return
    monitored = next((name for name in MONITORED if name in metrics), None)
    if monitored is not None:
        job.progress |= {"metric": monitored, "mode": direction(monitored)}
    job.state = State.DONE
    job.value = metrics.get(str(job.config["optimized_metric"] or monitored))
    job.seconds = existing.seconds if existing.seconds is not None else _epoch_seconds(existing.run)


def _job_number(path: Path) -> int | None:
    """Return the number at the start of a folder's name, as in 3-mlp-digits-mse-s0; None if there is none."""
    start = path.name.partition("-")[0]
    return int(start) if start.isdecimal() else None


def _epoch_seconds(run: RunFolder) -> float:
    """Return the duration of all epochs of a run together, in seconds; 0 if timing.csv cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return sum(float(line.rpartition(",")[2]) for line in runs.read_text(run.timing).splitlines()[1:])
    return 0.0
