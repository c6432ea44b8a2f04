"""`python train.py resume=SWEEP_FOLDER`: the command of a sweep again, in its folder."""

import json
from collections.abc import Sequence
from pathlib import Path

from losslab import runs, trust
from losslab.cli import going_on, said_again
from losslab.errors import LabError
from losslab.recognising import MAY_DIFFER
from losslab.sweep import State, jobs_of

_ANEW = (*MAY_DIFFER, "hydra.launcher.n_jobs")
_FOLDER = "hydra.sweep.dir"
_LOOKED_AT = 20

handed_over: Path | None = None
"""The summary.json whose command this process says again, and which somebody else may have written."""


def completed(arguments: Sequence[str]) -> list[str] | None:
    """The command that completes the sweep whose folder a command line names; None where that is of one run.

    Raises:
        LabError: it does not say what the sweep was, or more is to be said anew than may be.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments if argument not in said_again.FLAGS)
    folder = Path(given.pop("resume"))
    summary = folder / runs.SUMMARY
    if (folder / "config.json").exists() or not summary.is_file():
        return None
    anew = f"say the whole command again with {_FOLDER}={folder}, which runs of it what is not done"
    going_on.refuse_others(given, _ANEW, "completes a sweep", anew)
    _refuse_links(folder)
    said = said_again.kept(_command(summary))
    trust.also(trust.named(given.get("trust", "")))
    unsafe = next((part for part in said if not said_again.harmless(part)), None)
    if unsafe is not None:
        message = f"{summary}: {unsafe[:80]!r} could run code or write elsewhere, were it not yours: if it is, {anew}"
        raise LabError(message)
    command = [part for part in said if part.partition("=")[0] not in given]
    return [*command, *(f"{key}={value}" for key, value in given.items()), f"{_FOLDER}={_quoted(folder.absolute())}"]


def summary_of(arguments: Sequence[str]) -> Path:
    """The file that holds the command of the sweep whose folder a command line names."""
    return (
        next(Path(argument.partition("=")[2]) for argument in arguments if argument.startswith("resume="))
        / runs.SUMMARY
    )


def to_complete(folder: Path, command: Sequence[str]) -> str:
    """What to type to complete a sweep that was begun with this command."""
    names = [name for part in command for name in said_again.targets(part)]
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


def _refuse_links(folder: Path) -> None:
    link = next((path for path in folder.iterdir() if path.is_symlink()), None)
    if link is not None:
        message = f"{link} is a link, and what the sweep writes would go where it leads: put what it names in its place"
        raise LabError(message)


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
