"""Run folders: the only file that knows their layout. Imports no torch, so that reading a thousand is quick.

RUN/.hydra/                 what Hydra composed, and from which overrides
RUN/config.json             the same, resolved: builds the experiment again without Hydra
RUN/data.json               what must be known of the data to use the network without them
RUN/checkpoints/best.ckpt   the epoch with the best monitored metric
RUN/checkpoints/last.ckpt   the newest; previous.ckpt the one before it; beside each its .sha256
RUN/weights.pth             the best epoch's plain state_dict of the network
RUN/faults.json             what was made wrong with the training data, if anything was, and their checksum
RUN/history.csv             a row an epoch, the same to the byte if the run is repeated
RUN/timing.csv              a row an epoch, of wall times
RUN/path.csv                a row an epoch, of all weights, if they are few
RUN/metrics.json            final values
RUN/dynamics.npz            what the loss did to some examples over training, under callbacks=dynamics
RUN/figures/*.png           what was drawn
RUN/evaluation/NAME/        what an evaluation found, named by what it looked at: test, val, test+last, ...
RUN/exported.pt2            the network as a program of torch.export's
RUN/teacher/                config.json and weights.pth of the run that taught this one, if one did
RUN/train.log               what was said
RUN/events.out.tfevents.*   what TensorBoard shows

SWEEP/summary.json          what became of its jobs, beside their run folders
"""

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

from losslab.errors import LabError

SUMMARY = "summary.json"


@dataclass(frozen=True)
class RunFolder:
    """One run's folder and the names in it."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.json"

    @cached_property
    def best(self) -> Path:
        """Checkpoint of the best epoch."""
        return self.path / "checkpoints" / "best.ckpt"

    @cached_property
    def last(self) -> Path:
        """Newest checkpoint."""
        return self.path / "checkpoints" / "last.ckpt"

    @cached_property
    def previous(self) -> Path:
        """The one that was the newest before, for when the newest turns out to be damaged."""
        return self.path / "checkpoints" / "previous.ckpt"

    @property
    def weights(self) -> Path:
        """Plain state_dict of the network."""
        return self.path / "weights.pth"

    @property
    def faults(self) -> Path:
        """What was made wrong with the training data."""
        return self.path / "faults.json"

    @property
    def history(self) -> Path:
        """A row an epoch."""
        return self.path / "history.csv"

    @property
    def timing(self) -> Path:
        """Wall times, a row an epoch."""
        return self.path / "timing.csv"

    @property
    def path_of_weights(self) -> Path:
        """All weights before the first step and after every epoch, of a network that has few."""
        return self.path / "path.csv"

    @property
    def metrics(self) -> Path:
        """Final values."""
        return self.path / "metrics.json"

    @property
    def dynamics(self) -> Path:
        """What the callback of that name recorded."""
        return self.path / "dynamics.npz"

    @property
    def figures(self) -> Path:
        """Folder of figures."""
        return self.path / "figures"

    @property
    def data(self) -> Path:
        """What must be known of the data to use the network without them."""
        return self.path / "data.json"

    @property
    def exported(self) -> Path:
        """The network as a program of torch.export's."""
        return self.path / "exported.pt2"

    def evaluation(self, name: str) -> Path:
        """Folder of one evaluation."""
        return self.path / "evaluation" / name

    @property
    def teacher(self) -> Path:
        """A run folder with as much of the teacher's as is needed to ask it again."""
        return self.path / "teacher"

    def keep_teacher(self, taught_by: "RunFolder") -> None:
        """Copy what is needed of the teacher's folder, so that this one alone is enough to evaluate."""
        self.teacher.mkdir(exist_ok=True)
        shutil.copyfile(taught_by.config, self.teacher / taught_by.config.name)
        weights = taught_by.weights if taught_by.weights.is_file() else taught_by.checkpoint("best")
        shutil.copyfile(weights, self.teacher / taught_by.weights.name)

    def checkpoint(self, name: str) -> Path:
        """The file of "best" (which is "last" where nothing was validated), "last", or any path.

        Raises:
            LabError: there was a best epoch, and its checkpoint is gone.
        """
        if name != "best":
            return self.last if name == "last" else Path(name)
        if self.best.is_file():
            return self.best
        epoch = self._best_epoch if self.last.is_file() else None
        if epoch is None:
            return self.last
        plain = f", or --ckpt {self.weights} (its network; not for explain)" if self.weights.is_file() else ""
        message = f"{self.best}, of the best epoch {epoch}, is gone: bring it back, or name --ckpt last{plain}"
        raise LabError(message)

    @property
    def _best_epoch(self) -> Any:
        try:
            return json.loads(self.metrics.read_text()).get("best_epoch")
        except (OSError, ValueError, AttributeError):  # not finished, or damaged: it says nothing
            return None

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration.

        Raises:
            LabError: this is no run folder, or its configuration is damaged or none.
        """
        if not self.config.exists():
            inside = sorted(run for depth in ("*", "*/*") for run in self.path.glob(f"{depth}/{self.config.name}"))
            hint = f", but it holds runs: name one of them, such as {inside[0].parent}" if inside else ""
            message = f"{self.path} is no run folder: it holds no {self.config.name}{hint}"
            raise LabError(message)
        config: dict[str, Any] = _read_json(self.config, _BRING_BACK)
        wrong = _amiss(config)
        if wrong is not None:
            message = f"{self.config} is no configuration of a run: {wrong}; {_BRING_BACK}"
            raise LabError(message)
        return config

    def read_faults(self) -> dict[str, Any] | None:
        """What was made wrong with the training data; None where nothing was.

        Raises:
            LabError: the file is damaged.
        """
        if not self.faults.exists():
            return None
        faults: dict[str, Any] = _read_json(self.faults, _BRING_BACK)
        if not isinstance(faults, dict):
            message = f"{self.faults} does not say what was made wrong with the data: {_BRING_BACK}"
            raise LabError(message)
        return faults

    def read_data(self) -> dict[str, Any] | None:
        """What is known of the data; None in the folder of an older run.

        Raises:
            LabError: the file is damaged.
        """
        if not self.data.exists():
            return None
        known: dict[str, Any] = _read_json(self.data, _DELETE)
        if not isinstance(known, dict):
            message = f"{self.data} does not say what is known of the data: {_DELETE}"
            raise LabError(message)
        return known

    @property
    def started_in(self) -> Path | None:
        """The folder that the run was started in, to which relative paths in its configuration refer."""
        from omegaconf import OmegaConf  # noqa: PLC0415 -- nobody else who reads run folders needs it

        try:
            folder = OmegaConf.select(OmegaConf.load(self.path / ".hydra" / "hydra.yaml"), "hydra.runtime.cwd")
        except Exception:  # noqa: BLE001 -- not there, or damaged: it only serves to help
            return None
        return Path(folder) if folder else None


_BRING_BACK = "bring the file back, or train the run again"
_DELETE = "delete it, and the data themselves are read instead"
"""What to do about a data.json that is damaged."""
_SETTINGS = ("data", "loss", "model", "optimizer", "scheduler", "trainer", "choices")
_MADE = ("data", "loss", "model", "optimizer", "trainer")
_OPTIONAL = ("callbacks", "logger", "imbalance", "noise", "mix")


def _read_json(path: Path, mend: str) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        message = f"cannot read {path} ({error}): {mend}"
        raise LabError(message) from error


def _amiss(config: Any) -> str | None:
    """What keeps this from being the configuration of a run; None if nothing that is seen from here does."""
    if not isinstance(config, dict):
        return "it holds no settings by name"
    lacking = [key for key in ("seed", "name", *_SETTINGS) if key not in config]
    if lacking:
        return f"it lacks {', '.join(lacking)}"
    plain = [key for key in _SETTINGS if not isinstance(config[key], dict)]
    plain += [key for key in _OPTIONAL if not isinstance(config.get(key), dict | None)]
    if plain:
        return f"its {plain[0]} holds no settings by name"
    unnamed = [key for key in _MADE if not isinstance(config[key].get("_target_"), str)]
    if unnamed:
        return f"its {unnamed[0]} does not say what it is (_target_)"
    inside = [("choices", "loss"), ("scheduler", "scheduler"), ("scheduler", "interval")]
    return next((f"it lacks {group}.{key}" for group, key in inside if key not in config[group]), None)


@dataclass
class Found:
    """What lies in a folder, each thing once however many links lead to it."""

    runs: list[RunFolder] = field(default_factory=list)
    sweeps: list[Path] = field(default_factory=list)
    """Folders with a summary of their jobs."""
    unreadable: list[Path] = field(default_factory=list)


def search(places: Iterable[Path]) -> Found:
    """Look for run folders and sweeps in these folders and in all below them, but not inside of runs."""
    found, seen, waiting = Found(), set[str](), [*places][::-1]
    while waiting:
        place = waiting.pop()
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        if (place / "config.json").is_file():
            found.runs.append(RunFolder(place))
            continue
        try:
            inside = sorted(os.scandir(place), key=lambda entry: _in_order(entry.name))
        except OSError:
            found.unreadable.append(place)
            continue
        if any(entry.name == SUMMARY for entry in inside):
            found.sweeps.append(place)
        waiting += [place / entry.name for entry in reversed(inside) if entry.is_dir() and entry.name[0] != "."]
    return found


def _in_order(name: str) -> tuple[int, str]:
    """Jobs of a sweep by their number, so that the tenth does not come before the second."""
    number = name.partition("-")[0]
    return (int(number) if number.isdecimal() else -1, name)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file at once or not at all; a value that JSON has no word for (NaN, infinity) becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n")
    temporary.replace(path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value


def default_sweep_path() -> str:
    """outputs/sweep-STAMP-xxxx, which holds the folders of a sweep's runs."""
    return f"outputs/sweep-{stamp()}"


def default_path(name: str, job: str | None = None) -> str:
    """outputs/NAME/STAMP-xxxx, where no other run is or will be; outputs/NAME/JOB for a job that has a name."""
    return f"outputs/{name}/{job or stamp()}"


def shown(path: Path) -> Path:
    """A path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def name(model: str, data: str, loss: str, seed: int, *faults: str | None) -> str:
    """What a run is called unless it is given a name: MODEL-DATA-LOSS-sSEED, where DATA is digits+long_tail+symmetric.

    Args:
        model: the choice of its group, as `data` and `loss` are.
        data: to which the faults are added.
        loss: of the run.
        seed: of the run.
        faults: the choices of imbalance and noise; None or "none" where nothing is wrong.
    """
    wrong = [fault for fault in faults if fault not in (None, "none")]
    return f"{model}-{'+'.join((data, *wrong))}-{loss}-s{seed}"


def stamp() -> str:
    """The time to the second, and four characters for runs that start in the same one."""
    return f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{secrets.token_hex(2)}"


def claim(path: Path, first: str = "train.log") -> list[Path]:
    """Make the folder of a new run with its first file, before anything is computed or written.

    Whoever creates that file has the folder: of two runs that start into the same one, one is refused.

    Returns:
        The folders that did not exist before, innermost first: what `discard` may remove again.

    Raises:
        LabError: it cannot be made or written to, or is not empty.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            what = "already holds a run" if RunFolder(path).config.exists() else "is not empty"
            message = f"{path} {what}: set run_dir to another folder"
            raise LabError(message)
        (path / first).touch(exist_ok=False)
    except FileExistsError as error:
        message = f"{path} was taken by another run a moment ago: set run_dir to another folder"
        raise LabError(message) from error
    except OSError as error:
        message = f"cannot write to the run folder {path} ({error.strerror}): set run_dir to a folder you may write"
        raise LabError(message) from error
    return made


def discard(path: Path, made: list[Path]) -> None:
    """Undo `claim` for a run that was refused before it began; one that has begun stays."""
    if RunFolder(path).config.exists() or not path.is_dir():
        return
    shutil.rmtree(path / ".hydra", ignore_errors=True)
    (path / "train.log").unlink(missing_ok=True)
    for folder in made:
        with contextlib.suppress(OSError):  # not empty: somebody else's too
            folder.rmdir()


def discard_sweep(path: Path, made: list[Path]) -> None:
    """Undo `claim` for a sweep that was refused before its first job began."""
    for name in (SUMMARY, "multirun.yaml"):
        (path / name).unlink(missing_ok=True)
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()
