"""`python train.py resume=SWEEP_FOLDER`: the command of a sweep again, in its folder."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from losslab import runs, trust
from losslab.cli import going_on
from losslab.errors import LabError
from losslab.recognising import MAY_DIFFER
from losslab.sweep import State, jobs_of

_ANEW = (*MAY_DIFFER, "hydra.launcher.n_jobs")
_FOLDER = "hydra.sweep.dir"
_TARGET = r"_target_\s*[=:]\s*([\w.]+)\s*(?=[,}\]]|$)"
_FLAGS = ("-m", "--multirun")
_OF_HYDRA = re.compile(
    r"hydra/sweeper(/sampler)?|hydra\.sweep\.dir|hydra\.launcher\.n_jobs"
    r"|hydra\.sweeper\.(n_trials|n_jobs|direction|study_name|max_failure_rate|sampler\.seed|params\..+)"
)
"""What of Hydra may be set: no launcher of its own, no logging, no other place to look for configurations."""
_LOOKED_AT = 20


def completed(arguments: Sequence[str]) -> list[str] | None:
    """The command that completes the sweep whose folder a command line names; None where that is of one run.

    Raises:
        LabError: it does not say what the sweep was, or more is to be said anew than may be.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments if argument not in _FLAGS)
    folder = Path(given.pop("resume"))
    summary = folder / runs.SUMMARY
    if (folder / "config.json").exists() or not summary.is_file():
        return None
    anew = f"say the whole command again with {_FOLDER}={folder}, which runs of it what is not done"
    going_on.refuse_others(given, _ANEW, "completes a sweep", anew)
    said = _command(summary)
    trust.also(trust.named(given.get("trust", "")))
    unsafe = next((part for part in said if not _harmless(part)), None)
    if unsafe is not None:
        message = f"{summary}: {unsafe[:80]!r} could run code or write elsewhere, were it not yours: if it is, {anew}"
        raise LabError(message)
    command = [part for part in said if part.partition("=")[0] not in {_FOLDER, *given}]
    return [*command, *(f"{key}={value}" for key, value in given.items()), f"{_FOLDER}={_quoted(folder.absolute())}"]


def to_complete(folder: Path, command: Sequence[str]) -> str:
    """What to type to complete a sweep that was begun with this command."""
    names = [found[1] for part in command for found in re.finditer(_TARGET, part)]
    return going_on.command(folder, [{"_target_": name} for name in names])


def unfinished(beside: Path, command: Sequence[str]) -> Path | None:
    """The newest sweep of the same command that ended early, beside a new one in a folder named by the time."""
    for folder in sorted(beside.parent.glob("sweep-*"), reverse=True)[:_LOOKED_AT]:
        try:
            if folder != beside and _command(folder / runs.SUMMARY) == list(command):
                states = {job["state"] for job in jobs_of(folder)}
                return folder if states & {State.FAILED, State.INTERRUPTED} else None
        except (LabError, OSError):  # none that could be completed
            continue
    return None


def _harmless(part: str) -> bool:
    """Whether a part of a command that a folder holds does no more than choose and set what losslab has."""
    if part in _FLAGS:
        return True
    key, _, value = part.lstrip("+~").partition("=")
    named = [found[1] for found in re.finditer(_TARGET, part)]
    if (
        part.startswith("-")
        or "${" in part
        or len(named) < part.count("_target_")
        or not all(map(trust.trusted, named))
    ):
        return False
    if key.startswith("hydra"):
        return bool(_OF_HYDRA.fullmatch(key))
    return not key.startswith(("callbacks.", "logger.")) or "/" not in value


def _command(summary: Path) -> list[str]:
    if not summary.stat().st_size:
        message = f"{summary.parent} holds no sweep that had begun: delete it and start the sweep again"
        raise LabError(message)
    try:
        command = json.loads(runs.read_text(summary))["command"]
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        command = None
    if not isinstance(command, list) or not all(isinstance(part, str) for part in command):
        message = (
            f"{summary} does not say what the sweep was: say its command again with {_FOLDER}={summary.parent}, which "
            "runs of it what is not done"
        )
        raise LabError(message)
    return command


def _quoted(path: Path) -> str:
    """As Hydra reads a text in which anything may stand."""
    text = str(path).replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{text}'"
