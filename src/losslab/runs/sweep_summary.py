"""Reads summary.json, which lists the command of a sweep and the state of each job. Imports no torch."""

import json
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

from losslab.errors import LabError
from losslab.io.untrusted import read_json, read_text
from losslab.runs.folder import SUMMARY, RunFolder
from losslab.runs.lock import is_unlocked

STUDY_SWEEPER = "hydra/sweeper=study"
"""The word in the command of a sweep that says that it is a part of a study."""


class State(StrEnum):
    """The state of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


def read_summary_rows(folder: Path, *, ended: bool | None = None) -> list[dict[str, Any]]:
    """Read the rows of a sweep's summary.json, one per job; [] if the file is missing or empty.

    A killed sweep leaves jobs "running" or "waiting". If the sweep has ended (by default, if its folder is not locked),
    such a job is returned as done if its run has finished, otherwise as interrupted.

    Raises:
        LabError: the file is damaged.
    """
    file = folder / SUMMARY
    if not file.exists() or not file.stat().st_size:
        return []
    content = read_json(file)
    jobs = content.get("jobs") if isinstance(content, dict) else None
    if not isinstance(jobs, list) or not all(map(_is_job, jobs)):
        raise LabError(f"cannot read {file} (it does not contain the jobs of a sweep)")
    rows = [job | {"state": State(job["state"])} for job in jobs]
    has_ended = is_unlocked(folder) if ended is None else ended
    return [_final_state(row, folder) for row in rows] if has_ended else rows


def read_command(sweep: Path) -> list[str]:
    """Read the command line of a sweep from summary.json.

    Raises:
        LabError: the command line is not recorded.
    """
    summary, command = sweep / SUMMARY, None
    with suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
        command = json.loads(read_text(summary))["command"]
    if not isinstance(command, list) or not all(isinstance(part, str) for part in command):
        raise LabError(f"{summary} does not record the command of the sweep: type it again with run_dir={sweep}")
    return command


def _final_state(row: dict[str, Any], sweep: Path) -> dict[str, Any]:
    """Return the row of a job with the state in which the job ended, since the process of its sweep has ended."""
    if row["state"] not in (State.WAITING, State.RUNNING):
        return row
    if row.get("folder") and RunFolder(sweep / row["folder"]).metrics.is_file():
        return row | {"state": State.DONE}
    reason = "killed with its sweep" if row["state"] is State.RUNNING else "not started"
    return row | {"state": State.INTERRUPTED, "reason": reason}


def _is_job(row: Any) -> bool:
    if not isinstance(row, dict):
        return False
    folder, overrides, reason = row.get("folder"), row.get("overrides"), row.get("reason")
    return (
        isinstance(row.get("job"), int)
        and isinstance(overrides, list)
        and all(isinstance(override, str) for override in overrides)
        and (folder is None or (isinstance(folder, str) and "\0" not in folder))
        and (reason is None or isinstance(reason, str))
        and row.get("state") in [*State]
    )
