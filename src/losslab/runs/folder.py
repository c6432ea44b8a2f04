"""Run folders: paths and readers of one run, default names, and the search for runs and sweeps. Imports no torch.

Run folders are untrusted. Read a configuration with `read_config` if parts of it will be instantiated, and pass each
path in an existing run folder to `output` before you write to it.
"""

import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from losslab.errors import LabError
from losslab.io import atomic, conf_groups
from losslab.io.untrusted import check_output_path, read_json, read_text, read_yaml
from losslab.runs.config import choice_names, find_problem
from losslab.runs.renames import rename_targets
from losslab.runs.trust import check_targets

SUMMARY = "summary.json"
"""The file in a sweep's folder that lists the states of its jobs."""
JOBS = "jobs.json"
"""The file in a sweep's folder that lists the resolved configurations of its jobs. `resume=` reads it."""
STUDY = "study.json"
"""The file in a study's folder that records its command and its results. The study's sweeps are in this folder."""

_IMAGE_FOLDER = "losslab.data.image_folder.ImageFolder"
_LIST_ITEM = re.compile(r"- (?:([\w+~](?:[^:#]|:(?=\S)|(?<=\S)#)*)|'((?:[^']|'')*)')")
"""A line of a YAML list with the text itself, or with a text in single quotes."""
_CONTROL = re.compile(r"[\0-\x1f\x7f]")
_MAX_NAME = 150
"""The largest number of characters of a default name before its seed."""
_RESTORE = "restore the file, or train the run again"
_DELETE = "delete it; then the data themselves are read instead"


class _PathBelow:
    """A descriptor for an attribute of `RunFolder` that is the path of a file or subfolder."""

    def __init__(self, *parts: str) -> None:
        self.parts = parts

    def __get__(self, run: "RunFolder", owner: type) -> Path:
        return run.path.joinpath(*self.parts)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. The docstring of the package describes its files."""

    path: Path
    trusted: tuple[str, ...] = field(default=(), compare=False)
    """Packages whose classes may be instantiated, in addition to those on the allow-list."""

    config = _PathBelow("config.json")
    best = _PathBelow("checkpoints", "best.ckpt")
    last = _PathBelow("checkpoints", "last.ckpt")
    previous = _PathBelow("checkpoints", "previous.ckpt")
    weights = _PathBelow("weights.pth")
    metadata = _PathBelow("data.json")
    faults = _PathBelow("faults.json")
    history = _PathBelow("history.csv")
    timing = _PathBelow("timing.csv")
    weight_trajectory = _PathBelow("path.csv")
    metrics = _PathBelow("metrics.json")
    dynamics = _PathBelow("dynamics.npz")
    figures = _PathBelow("figures")
    exported = _PathBelow("exported.pt2")
    log = _PathBelow("train.log")
    composed = _PathBelow(".hydra", "config.yaml")
    overrides = _PathBelow(".hydra", "overrides.yaml")
    teacher = _PathBelow("teacher")
    """A run folder that contains only the configuration and the weights of the teacher."""

    def evaluation(self, name: str) -> Path:
        """Return the folder of an evaluation, by its name such as test or test+last."""
        return self.path / "evaluation" / name

    def output(self, path: Path) -> Path:
        """Return `path` if it is safe to write to: if it is outside of this folder, or has no links below this folder.

        Raises:
            LabError: a part of the path below this folder is a symbolic link.
        """
        check_output_path(path, self.path)
        return path

    def copy_teacher(self, teacher: "RunFolder") -> None:
        """Copy a teacher's configuration and weights into this folder, so that the teacher's own folder is not needed.

        Raises:
            LabError: `self.teacher` is a symbolic link.
            OSError: a file cannot be copied.
        """
        copy = RunFolder(self.output(self.teacher))
        atomic.copy(teacher.config, copy.config)
        atomic.copy(teacher.weights if teacher.weights.is_file() else teacher.checkpoint("best"), copy.weights)

    def checkpoint(self, name: str) -> Path:
        """Return the path of the checkpoint if `name` is "best" or "last"; otherwise return `name` as a path.

        If the run has no best epoch, since it did not validate, "best" is the last checkpoint.

        Raises:
            LabError: there was a best epoch, but its checkpoint is missing.
        """
        if name != "best":
            return self.last if name == "last" else Path(name)
        if self.best.is_file():
            return self.best
        epoch = self._best_epoch if self.last.is_file() else None
        if epoch is None:
            return self.last
        weights = f", or --ckpt {self.weights} (the network only; not for explain)" if self.weights.is_file() else ""
        raise LabError(
            f"{self.best}, the checkpoint of the best epoch {epoch}, is missing: restore it, "
            f"or use --ckpt last{weights}"
        )

    @property
    def _best_epoch(self) -> Any:
        try:
            return read_json(self.metrics).get("best_epoch")
        except (LabError, AttributeError):  # the file is missing, since the run has not finished, or damaged
            return None

    def read_config(self) -> dict[str, Any]:
        """Read the configuration, and check that each `_target_` in it may be instantiated.

        Raises:
            LabError: this is not a run folder, its configuration is damaged, or a `_target_` is not allowed.
        """
        config = self.read_unchecked_config()
        check_targets(config, self.config, self.trusted)
        data = config["data"]
        is_early = data["_target_"] == _IMAGE_FOLDER and "background" not in data
        if is_early and "background" not in (self.read_metadata() or {}):  # early versions ignored transparency
            return {**config, "data": {**data, "background": None}}
        return config

    def read_unchecked_config(self) -> dict[str, Any]:
        """Read the configuration without checking its `_target_`s. Look up settings in it, but instantiate nothing.

        Old names of classes are replaced by current ones, and the value of the key `trust` by `self.trusted`.

        Raises:
            LabError: this is not a run folder, or its configuration is damaged.
        """
        if not self.config.exists():
            runs = sorted(run for depth in ("*", "*/*") for run in self.path.glob(f"{depth}/{self.config.name}"))
            hint = f", but it contains runs: choose one of them, such as {runs[0].parent}" if runs else ""
            raise LabError(f"{self.path} is not a run folder: it contains no {self.config.name}{hint}")
        config = read_json(self.config, _RESTORE)
        problem = find_problem(config)
        if problem is not None:
            raise LabError(f"{self.config} is not the configuration of a run: {problem}; {_RESTORE}")
        names = choice_names(config, config["choices"])
        return {**rename_targets(config), "choices": config["choices"] | names, "trust": list(self.trusted)}

    def read_faults(self) -> dict[str, Any] | None:
        """Read faults.json, which describes the corruptions of the training data; None if there are none.

        Raises:
            LabError: the file is damaged.
        """
        return self._read_object(self.faults, "does not describe the corruptions", _RESTORE)

    def read_metadata(self) -> dict[str, Any] | None:
        """Read data.json, the metadata of the data; None if the file is missing, as in runs of early versions.

        Raises:
            LabError: the file is damaged.
        """
        return self._read_object(self.metadata, "contains no data metadata", _DELETE)

    @staticmethod
    def _read_object(path: Path, problem: str, advice: str) -> dict[str, Any] | None:
        if not path.exists():
            return None
        content = read_json(path, advice)
        if not isinstance(content, dict):
            raise LabError(f"{path} {problem}: {advice}")
        return content

    def read_overrides(self) -> list[str]:
        """Read the overrides from which Hydra composed the configuration; [] if they are not recorded, or damaged."""
        try:
            items = [_LIST_ITEM.fullmatch(line) for line in read_text(self.overrides).splitlines()]
            if all(items):  # as almost always; read_yaml takes milliseconds
                return [item[1] or item[2].replace("''", "'") for item in items if item]
            content = read_yaml(self.overrides)
        except (OSError, ValueError):
            return []
        is_valid = isinstance(content, list) and all(isinstance(override, str) for override in content)
        return content if is_valid else []

    @property
    def launch_dir(self) -> Path | None:
        """The working directory of the training, to which relative paths in the configuration refer.

        It is None if it is not recorded. It is untrusted: use it only to find data and in messages.
        """
        try:
            folder = read_yaml(self.path / ".hydra" / "hydra.yaml")["hydra"]["runtime"]["cwd"]
        except (OSError, ValueError, KeyError, TypeError):  # the file is missing or damaged
            return None
        return Path(folder) if isinstance(folder, str) and folder and "\0" not in folder else None


@dataclass
class FoundRuns:
    """The runs, sweeps and unreadable folders that `find_runs` found. A folder is listed once, whatever links to it."""

    runs: list[RunFolder] = field(default_factory=list)
    sweeps: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)


def find_runs(folders: Iterable[Path]) -> FoundRuns:
    """Find all runs and sweeps in these folders and their subfolders, except hidden ones and subfolders of runs."""
    found, visited, waiting = FoundRuns(), set[str](), [*folders][::-1]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in visited:
            continue
        visited.add(real)
        if RunFolder(folder).config.is_file():
            found.runs.append(RunFolder(folder))
            continue
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: _sort_key(entry.name))
        except OSError:
            found.unreadable.append(folder)
            continue
        if any(entry.name == SUMMARY for entry in entries):
            found.sweeps.append(folder)
        waiting += [folder / entry.name for entry in reversed(entries) if entry.is_dir() and entry.name[0] != "."]
    return found


def _sort_key(name: str) -> tuple[int, str]:
    """Return a key that sorts the folders of a sweep's jobs by number: 2-a before 10-a."""
    number = name.partition("-")[0]
    return (int(number) if number.isdecimal() else -1, name)


def default_name(names: Mapping[str, Any], seed: int) -> str:
    """Return the default name of a run: MODEL-DATA-LOSS-sSEED, where DATA names its corruptions too.

    `names` are the names of the config groups. For example, digits and symmetric give DATA=digits+symmetric.
    """
    data = [names[group] for group in ("data", *conf_groups.CORRUPTIONS) if names.get(group) is not None]
    name = f"{names['model']}-{'+'.join(data)}-{names['loss']}".replace("/", "-")  # a choice may be in a subfolder
    return f"{name if len(name) <= _MAX_NAME else f'{name[:_MAX_NAME]}..'}-s{seed}"


def check_name(name: str) -> None:
    """Raise a LabError if a folder with the name of a run would not be below outputs/, or cannot be created."""
    parts = name.split("/")
    if {"", ".", ".."} & {*parts}:
        raise LabError(f"name={name} is not a path below outputs/: choose another name, or set run_dir to the folder")
    if max(len(part.encode(errors="replace")) for part in parts) > 255 or _CONTROL.search(name):
        raise LabError(
            f"name={name[:40]!a}... cannot be the name of a folder: choose a shorter one of letters and digits"
        )


def default_run_dir(name: str, job: str | None = None) -> str:
    """Return the default run folder: outputs/NAME/TIMESTAMP, or outputs/NAME/JOB if `job` is a cluster's job id."""
    return f"outputs/{name}/{job or timestamp()}"


def timestamp() -> str:
    """Return the current time with four random hexadecimal digits, because runs may start in the same second."""
    return f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{secrets.token_hex(2)}"


def display_path(path: Path) -> Path:
    """Return a path relative to the working directory. A path outside of that directory is returned unchanged.

    So is every path if the working directory is a run folder, to which hydra.job.chdir=true has changed: the user typed
    the command elsewhere.
    """
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) and not RunFolder(here).log.exists() else path
