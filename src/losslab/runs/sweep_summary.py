"""The summary of a sweep, as its folder holds it: the state of each job. Imports no torch."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

from losslab import runs
from losslab.errors import LabError
from losslab.runs import RunFolder


class State(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


def jobs_of(folder: Path, *, over: bool | None = None) -> list[dict[str, Any]]:
    """What the summary of a sweep says of each job; nothing where there is no summary, or one that was not begun.

    A sweep that was killed could not write that its jobs run no longer: here they do not.

    Args:
        folder: of the sweep.
        over: whether nobody runs it any more; None to look.

    Raises:
        LabError: it is damaged.
    """
    file = folder / runs.SUMMARY
    if not file.exists() or not file.stat().st_size:
        return []
    try:
        content = json.loads(runs.read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise LabError(f"cannot read {file} ({error})") from error
    jobs = content.get("jobs") if isinstance(content, dict) else None
    if not isinstance(jobs, list) or not all(map(_is_job, jobs)):
        raise LabError(f"cannot read {file} (it holds something else than the jobs of a sweep)")
    rows = [job | {"state": State(job["state"])} for job in jobs]
    ended = runs.abandoned(folder) if over is None else over
    return [_as_it_ended(row, folder) if ended else row for row in rows]


def _as_it_ended(row: dict[str, Any], sweep: Path) -> dict[str, Any]:
    if row["state"] not in (State.WAITING, State.RUNNING):
        return row
    if row.get("folder") and RunFolder(sweep / row["folder"]).metrics.is_file():
        return row | {"state": State.DONE}
    ran = row["state"] is State.RUNNING
    return row | {"state": State.INTERRUPTED, "reason": "killed with its sweep" if ran else "not started"}


def _is_job(row: Any) -> bool:
    """Whether it is what `Sweep` writes of a job, as far as it is read."""
    if not isinstance(row, dict):
        return False
    folder, asked, reason = row.get("folder"), row.get("overrides"), row.get("reason")
    return (
        isinstance(row.get("job"), int)
        and isinstance(asked, list)
        and all(isinstance(override, str) for override in asked)
        and (folder is None or (isinstance(folder, str) and "\0" not in folder))
        and (reason is None or isinstance(reason, str))
        and row.get("state") in [*State]
    )
