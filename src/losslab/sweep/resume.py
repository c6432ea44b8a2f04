"""How to go on with a run or a sweep: what to type, and what may be said anew.

Which words of a command that a folder holds are said again for whom they were not written for.

`python train.py resume=SWEEP_FOLDER`: the command of a sweep again, in its folder.

What earlier calls of a sweep left in its folder, and what of it a new call takes over. Imports no torch.
"""

import contextlib
import json
import logging
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from losslab import CONF, runs
from losslab.errors import LabError
from losslab.runs import RunFolder, trust
from losslab.runs.config import CHANGEABLE_ON_RESUME, exact_identity, identity
from losslab.runs.sweep_summary import State, read_jobs
from losslab.sweep.state import Job
from losslab.training.distributed import spawn


def resume_command(folder: Path, config: Any) -> str:
    """What to type to go on with what lies in a folder and was made of this configuration."""
    program = ["python", sys.argv[0]] if Path(sys.argv[0]).name == "train.py" else ["losslab", "train"]
    packages = trust.packages_to_trust(config)
    trusted = [f"trust=[{','.join(packages)}]"] if packages else []
    return shlex.join([*program, f"resume={runs.display_path(folder)}", *trusted])


def refuse_others(given: Iterable[str], allowed: Sequence[str], does: str, otherwise: str) -> None:
    """Refuse settings beside resume= that would make it another run or sweep.

    Args:
        given: their keys.
        allowed: those that may be said anew.
        does: what resume= does, such as "completes a sweep".
        otherwise: what to do instead of leaving them out.

    Raises:
        LabError: there is one.
    """
    other = next((key for key in given if key not in allowed), None)
    if other is not None:
        raise LabError(
            f"resume= {does} as it was, {other} cannot be said anew (only {', '.join(allowed)}): leave it out, "
            f"or {otherwise}"
        )


FLAGS = ("-m", "--multirun")
_LEFT_OUT = frozenset({"trust", "run_dir", "hydra.sweep.dir"})
"""Whom to trust and where to write is never what a folder says."""
_OWN = frozenset({
    "seed", "name", "tags", "train", "test", "ckpt_path", "teacher", "compile", "optimized_metric", "examine",
    "traceback",
})  # fmt: skip
_GROUPS = frozenset({
    "data", "loss", "optimizer", "scheduler", "mix", "imbalance", "noise", "trainer", "callbacks", "logger", "model",
    "experiment", "debug",
})  # fmt: skip
_OF_HYDRA = re.compile(
    r"hydra\.launcher\.n_jobs|hydra\.sweeper\.(n_trials|n_jobs|direction|study_name|max_failure_rate|sampler\.seed)"
)
"""What of Hydra may be set: no launcher of its own, no logging, no other place to look for configurations."""
_OF_PLUGINS = {"hydra/sweeper": {"basic", "optuna"}, "hydra/launcher": {"losslab"}}
"""Choices that are no files of conf/; hydra/sweeper/sampler has only Optuna's own."""
_PARAMS = "hydra.sweeper.params."
_ELSEWHERE = frozenset({"data.url", "data.verify"})
"""By which something would be fetched from anywhere, and unpacked unseen."""
_KEY = re.compile(r"(\+\+?|~)?([A-Za-z]\w*(?:[./]\w+)*)", re.ASCII)
_CHOICE = re.compile(r"[\w-]+", re.ASCII)
_CHOICES = re.compile(r"choice\((.*)\)|\[(.*)\]")
_TARGET = re.compile(r"""_target_['"]?\s*[=:]\s*([\w.]+)\s*(?=[,}\]]|$)""", re.ASCII)


def kept(command: list[str]) -> list[str]:
    """The words of a command without those that say where to write or whom to trust; always of a sweep."""
    left = [part for part in command if part.lstrip("+").partition("=")[0] not in _LEFT_OUT]
    return left if set(left) & set(FLAGS) else [FLAGS[0], *left]


def targets(part: str) -> list[str]:
    """The names in a word of what is to be made."""
    return _TARGET.findall(part)


def harmless(part: str) -> bool:
    """Whether a word does no more than choose and set what losslab has."""
    if part in FLAGS:
        return True
    key, _, value = part.partition("=")
    plain = part.replace("${seed}", "0")  # which docs/choosing.md has jobs refer to
    found = _KEY.fullmatch(key)
    if found is None or "${" in plain or "\n" in part or not _makes_what_is_trusted(part):
        return False
    name = found[2].removeprefix(_PARAMS)
    if name.startswith("hydra"):
        return _of_hydra(name, value)
    group, _, inside = name.partition(".")
    if group in _GROUPS and not inside:
        return (found[1] == "~" and not value) or all(_is_choice(group, choice) for choice in _choices(value))
    if inside:
        writes = group in {"callbacks", "logger"} and ("/" in value or ".." in value)
        return (group in _GROUPS or group == "notes") and "/" not in name and name not in _ELSEWHERE and not writes
    return name in _OWN


def _of_hydra(name: str, value: str) -> bool:
    if name == "hydra/sweeper/sampler":
        return bool(_CHOICE.fullmatch(value))
    if name in _OF_PLUGINS:
        return value in _OF_PLUGINS[name]
    return bool(_OF_HYDRA.fullmatch(name)) and not {"{", "/"} & set(value)


def _choices(value: str) -> list[str]:
    listed = _CHOICES.fullmatch(value)
    return [choice.strip() for choice in (value if listed is None else listed[1] or listed[2] or "").split(",")]


def _is_choice(group: str, choice: str) -> bool:
    """Whether it is a file of conf/ and so of losslab's own. Jobs of SLURM have no summary to be completed by."""
    there = bool(_CHOICE.fullmatch(choice)) and (CONF / group / f"{choice}.yaml").is_file()
    return choice == "null" or (there and choice != "slurm")


def _makes_what_is_trusted(part: str) -> bool:
    named = targets(part)
    return len(named) == part.count("_target_") and all(trust.is_trusted(name, trust.said()) for name in named)


_ANEW = (*CHANGEABLE_ON_RESUME, "hydra.launcher.n_jobs")
_FOLDER = "hydra.sweep.dir"
_LOOKED_AT = 20

handed_over: Path | None = None
"""The summary.json whose command this process says again, and which somebody else may have written."""


def completed(arguments: Sequence[str]) -> list[str] | None:
    """The command that completes the sweep whose folder a command line names; None where that is of one run.

    Raises:
        LabError: it does not say what the sweep was, or more is to be said anew than may be.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments if argument not in FLAGS)
    folder = Path(given.pop("resume"))
    summary = folder / runs.SUMMARY
    if (folder / "config.json").exists() or not summary.is_file():
        return None
    anew = f"say the whole command again with {_FOLDER}={folder}, which runs of it what is not done"
    refuse_others(given, _ANEW, "completes a sweep", anew)
    _refuse_links(folder)
    said = kept(_command(summary))
    trust.also(trust.parse_option(given.get("trust", "")))
    unsafe = next((part for part in said if not harmless(part)), None)
    if unsafe is not None:
        raise LabError(
            f"{summary}: {unsafe[:80]!r} could run code or write elsewhere, were it not yours: if it is, {anew}"
        )
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
    names = [name for part in command for name in targets(part)]
    return resume_command(folder, [{"_target_": name} for name in names])


def unfinished(beside: Path, command: Sequence[str]) -> Path | None:
    """The newest sweep of the same command that ended early, beside a new one in a folder named by the time."""
    for folder in sorted(beside.parent.glob("sweep-*"), reverse=True)[:_LOOKED_AT]:
        try:
            if folder != beside and _command(folder / runs.SUMMARY) == list(command):
                states = {job["state"] for job in read_jobs(folder)}
                return folder if states & {State.FAILED, State.INTERRUPTED} else None
        except (LabError, OSError):  # none that could be completed
            continue
    return None


def _refuse_links(folder: Path) -> None:
    link = next((path for path in folder.iterdir() if path.is_symlink()), None)
    if link is not None:
        raise LabError(
            f"{link} is a link, and what the sweep writes would go where it leads: put what it names in its place"
        )


def _command(summary: Path) -> list[str]:
    if not summary.stat().st_size:
        raise LabError(f"{summary.parent} holds no sweep that had begun: delete it and start the sweep again")
    try:
        command = json.loads(runs.read_text(summary))["command"]
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        command = None
    if not isinstance(command, list) or not all(isinstance(part, str) for part in command):
        raise LabError(
            f"{summary} does not say what the sweep was: say its command again with {_FOLDER}={summary.parent}, which "
            "runs of it what is not done"
        )
    return command


def _quoted(path: Path) -> str:
    """As Hydra reads a text in which anything may stand."""
    text = str(path).replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{text}'"


logger = logging.getLogger("losslab")


@dataclass
class Left:
    """A run that lies there."""

    run: RunFolder
    exactly: str
    number: int | None
    """Of its job; None where nothing says it."""
    seconds: float | None
    """That it took; None unless the call that ran it lived to write it down."""

    @property
    def final(self) -> dict[str, float] | None:
        """Final values; None of a run that is not finished."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(runs.read_text(self.run.metrics))
            return found if isinstance(found, dict) else None
        return None


class Earlier:
    """The runs in the folder of a sweep, each of which one job may take over.

    Args:
        sweep: the folder.

    Raises:
        LabError: its summary is damaged.
    """

    def __init__(self, sweep: Path) -> None:
        rows = read_jobs(sweep, ended=True)
        self._home = sweep.resolve()
        named = {(sweep / row["folder"]).resolve(): row for row in rows if row.get("folder")}
        self._rows = {path: row for path, row in named.items() if self._home in path.parents}
        self._left: defaultdict[str, list[Left]] = defaultdict(list)
        self._numbers: dict[int, Path | None] = {}
        self._monitored: dict[str, tuple[str, str] | None] = {}
        for path in sweep.iterdir() if sweep.is_dir() else ():
            if path.is_dir() and _number(path) is not None:
                self._numbers[_number(path) or 0] = path.resolve()
        for run in runs.find_runs([place for place in (sweep, *self._rows) if place.is_dir()]).runs:
            try:
                self._find(run)
            except LabError as error:
                logger.warning("not taken over: %s", error)

    def _find(self, run: RunFolder) -> None:
        config, path = run.read_unchecked_config(), run.path.resolve()
        if self._home not in path.parents:  # by a link: what the sweep writes stays in its folder
            raise LabError(f"{run.path} leads out of the folder of the sweep")
        row = self._rows.get(path, {})
        number = row.get("job", _number(path))
        seconds = row.get("seconds") if row.get("state") is State.DONE else None
        self._left[identity(config)].append(Left(run, exact_identity(config), number, seconds))
        if number is not None:
            self._numbers.setdefault(number, path)

    @property
    def rest(self) -> list[dict[str, Any]]:
        """What the summary says of the jobs whose runs lie there and were not taken over."""
        return [row for path, row in self._rows.items() if path.is_dir()]

    def take(self, config: Mapping[str, Any]) -> Left | None:
        """The run of this resolved configuration, if there is one and no job has taken it yet."""
        same = self._left.get(identity(config))
        if not same:
            return None
        asked = exact_identity(config)
        left = same.pop(next((place for place, each in enumerate(same) if each.exactly == asked), 0))
        self._rows.pop(left.run.path.resolve(), None)
        return left

    def number(self, wanted: int, folder: Path | None) -> int:
        """The number of a job: the one that it wants, or the first that is free where another folder has that.

        Args:
            wanted: its place among the jobs, or what it was before.
            folder: where it runs or would run under this number; None for a job that has none, or may not have it.
        """
        path = None if folder is None else folder.resolve()
        if wanted in self._numbers and (path is None or self._numbers[wanted] != path):
            wanted = next(free for free in count() if free not in self._numbers)
        self._numbers[wanted] = None  # to no other job
        if path is not None:
            self._rows.pop(path, None)
        return wanted

    def fill_in(self, taken: Sequence[tuple[Job, Left, Mapping[str, Any]]]) -> None:
        """Tell jobs what became of the runs that they took over, each with its resolved configuration.

        What the task of a finished one returned is read from its folder: the metric to optimise, or the one by which
        runs on its data are compared.
        """
        data = {_kind_of_data(config): config["data"] for _, _, config in taken}
        unknown = {key: given for key, given in data.items() if key not in self._monitored}
        if unknown:
            self._monitored |= dict(zip(unknown, spawn.run_in_subprocess(_monitored, list(unknown.values())), strict=True))
        for job, left, config in taken:
            monitored = self._monitored[_kind_of_data(config)]
            if monitored is not None:
                job.news |= dict(zip(("metric", "mode"), monitored, strict=True))
            final = left.final
            job.before, job.resumes = final is not None, final is None
            if final is not None:
                job.state = State.DONE
                job.value = final.get(str(config["optimized_metric"] or job.news.get("metric")))
                job.seconds = left.seconds if left.seconds is not None else _trained(left.run)


def _number(path: Path) -> int | None:
    start = path.name.partition("-")[0]
    return int(start) if start.isdecimal() else None


def _trained(run: RunFolder) -> float:
    """The seconds that its epochs took."""
    with contextlib.suppress(OSError, ValueError):
        return sum(float(line.rpartition(",")[2]) for line in runs.read_text(run.timing).splitlines()[1:])
    return 0.0


def _kind_of_data(config: Mapping[str, Any]) -> str:
    """The data without what follows from the seed: what is measured on them does not."""
    follows = {key.removeprefix("data.") for key in config["per_run"] if key.startswith("data.")}
    return runs.to_json({key: value for key, value in config["data"].items() if key not in follows})


def _monitored(data: Sequence[dict[str, Any]]) -> list[tuple[str, str] | None]:
    """The metric by which runs on each of these data are compared, and whether its "min" or "max" is best."""
    from losslab.models import metrics  # noqa: PLC0415
    from losslab.training import experiment  # noqa: PLC0415

    found: list[tuple[str, str] | None] = []
    for each in data:
        try:
            task = experiment.facts(each).task
            found.append((f"val/{metrics.MONITOR[task]}", metrics.monitor_mode(task)))
        except LabError:  # data that are gone: the run is finished, and needs them no more
            found.append(None)
    return found
