"""The folder of one run: its paths, its readers, and the default names of new ones. Imports no torch.

A run folder may have been written by somebody else. So `read_config` is the only way to a configuration that is to be
instantiated, and `output` the only way to a path that is written by what reads runs.
"""

import json
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from losslab.errors import LabError
from losslab.io import atomic
from losslab.io.json_files import read_json
from losslab.io.untrusted import check_output_path, read_text, read_yaml
from losslab.runs.config import find_problem
from losslab.runs.renames import rename_targets
from losslab.runs.trust import check_targets

_RESTORE = "bring the file back, or train the run again"
_DELETE = "delete it, and the data themselves are read instead"


class _Below:
    """A path below the run folder."""

    def __init__(self, *parts: str) -> None:
        self.parts = parts

    def __get__(self, run: "RunFolder", owner: type) -> Path:
        return run.path.joinpath(*self.parts)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. The package's docstring says what each path holds."""

    path: Path
    trusted: tuple[str, ...] = field(default=(), compare=False)
    """Packages that the user trusts, beside those on losslab's list, when the run is instantiated."""

    config = _Below("config.json")
    best = _Below("checkpoints", "best.ckpt")
    last = _Below("checkpoints", "last.ckpt")
    previous = _Below("checkpoints", "previous.ckpt")
    weights = _Below("weights.pth")
    metadata = _Below("data.json")
    faults = _Below("faults.json")
    history = _Below("history.csv")
    timing = _Below("timing.csv")
    weight_trajectory = _Below("path.csv")
    metrics = _Below("metrics.json")
    dynamics = _Below("dynamics.npz")
    figures = _Below("figures")
    exported = _Below("exported.pt2")
    teacher = _Below("teacher")
    """A run folder with the teacher's configuration and weights."""

    def evaluation(self, name: str) -> Path:
        """Folder of one evaluation."""
        return self.path / "evaluation" / name

    def output(self, path: Path) -> Path:
        """Check and return a path for writing.

        Args:
            path: below this folder, where no part of it may be a link; or anywhere else, where the user chose it.

        Raises:
            LabError: the path follows a link below this folder.
        """
        check_output_path(path, self.path)
        return path

    def copy_teacher(self, teacher: "RunFolder") -> None:
        """Copy a teacher's configuration and weights into this folder, which then suffices to evaluate the run.

        Raises:
            LabError: its folder here is a link.
            OSError: a file cannot be copied.
        """
        copy = RunFolder(self.output(self.teacher))
        atomic.copy(teacher.config, copy.config)
        atomic.copy(teacher.weights if teacher.weights.is_file() else teacher.checkpoint("best"), copy.weights)

    def checkpoint(self, name: str) -> Path:
        """Return the path of a checkpoint.

        Args:
            name: "best" (which is "last" if nothing was validated), "last", or a path.

        Raises:
            LabError: there was a best epoch, and its checkpoint is missing.
        """
        if name != "best":
            return self.last if name == "last" else Path(name)
        if self.best.is_file():
            return self.best
        epoch = self._best_epoch if self.last.is_file() else None
        if epoch is None:
            return self.last
        weights = f", or --ckpt {self.weights} (its network; not for explain)" if self.weights.is_file() else ""
        raise LabError(f"{self.best}, of the best epoch {epoch}, is gone: bring it back, or name --ckpt last{weights}")

    @property
    def _best_epoch(self) -> Any:
        try:
            return json.loads(read_text(self.metrics)).get("best_epoch")
        except (OSError, ValueError, AttributeError):  # the run has not finished, or the file is damaged
            return None

    def read_config(self) -> dict[str, Any]:
        """Read the configuration to instantiate the run from it. It names only what is listed or trusted.

        Raises:
            LabError: as `read_unchecked_config`; or it names something else.
        """
        config = self.read_unchecked_config()
        check_targets(config, self.config, self.trusted)
        return config

    def read_unchecked_config(self) -> dict[str, Any]:
        """Read the configuration to look up settings; nothing may be instantiated from it.

        Old names of classes are replaced by current ones. `trust` is what this object trusts, whatever the file says.

        Raises:
            LabError: this is no run folder, or its configuration is damaged.
        """
        if not self.config.exists():
            runs = sorted(run for depth in ("*", "*/*") for run in self.path.glob(f"{depth}/{self.config.name}"))
            hint = f", but it holds runs: name one of them, such as {runs[0].parent}" if runs else ""
            raise LabError(f"{self.path} is no run folder: it holds no {self.config.name}{hint}")
        config = read_json(self.config, _RESTORE)
        problem = find_problem(config)
        if problem is not None:
            raise LabError(f"{self.config} is no configuration of a run: {problem}; {_RESTORE}")
        return {**rename_targets(config), "trust": list(self.trusted)}

    def read_faults(self) -> dict[str, Any] | None:
        """Read how the training data were corrupted; None if they were not.

        Raises:
            LabError: the file is damaged.
        """
        return self._read_object(self.faults, "does not describe how the data were corrupted", _RESTORE)

    def read_metadata(self) -> dict[str, Any] | None:
        """Read the metadata of the data; None in the folder of a run of an early version.

        Raises:
            LabError: the file is damaged.
        """
        return self._read_object(self.metadata, "is no description of the data", _DELETE)

    @staticmethod
    def _read_object(path: Path, problem: str, advice: str) -> dict[str, Any] | None:
        if not path.exists():
            return None
        content = read_json(path, advice)
        if not isinstance(content, dict):
            raise LabError(f"{path} {problem}: {advice}")
        return content

    @property
    def launch_dir(self) -> Path | None:
        """The working directory of the training, to which relative paths in the configuration refer."""
        try:
            folder = read_yaml(self.path / ".hydra" / "hydra.yaml")["hydra"]["runtime"]["cwd"]
        except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: it only serves a hint
            return None
        return Path(folder) if isinstance(folder, str) and folder and "\0" not in folder else None


def default_name(model: str, data: str, loss: str, seed: int, *corruptions: str | None) -> str:
    """Return the name of a run that was given none: MODEL-DATA-LOSS-sSEED, with DATA such as digits+symmetric.

    Args:
        model: choice of the configuration group, as `data` and `loss` are.
        data: choice.
        loss: choice.
        seed: of the run.
        corruptions: choices of imbalance and noise; None or "none" for neither.
    """
    chosen = [choice for choice in corruptions if choice not in (None, "none")]
    return f"{model}-{'+'.join((data, *chosen))}-{loss}-s{seed}"


def default_run_dir(name: str, job: str | None = None) -> str:
    """Return outputs/NAME/TIMESTAMP, a folder that no other run has, or outputs/NAME/JOB for a cluster's job."""
    return f"outputs/{name}/{job or timestamp()}"


def default_sweep_dir() -> str:
    """Return outputs/sweep-TIMESTAMP."""
    return f"outputs/sweep-{timestamp()}"


def timestamp() -> str:
    """Return the time to the second, and four random characters for runs that start in the same one."""
    return f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{secrets.token_hex(2)}"


def display_path(path: Path) -> Path:
    """Return a path relative to the working directory, if it lies there."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
