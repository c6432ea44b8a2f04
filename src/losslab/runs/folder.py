"""The folder of one run: paths, readers, and default names. Imports no torch.

A run folder is untrusted. So a configuration that will be instantiated is read only with `read_config`, and a command
that reads runs writes only to paths from `output`.
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


class _PathBelow:
    """A path below the run folder."""

    def __init__(self, *parts: str) -> None:
        self.parts = parts

    def __get__(self, run: "RunFolder", owner: type) -> Path:
        return run.path.joinpath(*self.parts)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. The package's docstring describes its files."""

    path: Path
    trusted: tuple[str, ...] = field(default=(), compare=False)
    """Packages that the user trusts, besides those on the allow-list, when the run is instantiated."""

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
    teacher = _PathBelow("teacher")
    """A run folder with the teacher's configuration and weights."""

    def evaluation(self, name: str) -> Path:
        """Return the folder of one evaluation."""
        return self.path / "evaluation" / name

    def output(self, path: Path) -> Path:
        """Check and return a path for writing.

        Args:
            path: a path below this folder; or any other path, which the user chose.

        Raises:
            LabError: the path follows a symbolic link below this folder.
        """
        check_output_path(path, self.path)
        return path

    def copy_teacher(self, teacher: "RunFolder") -> None:
        """Copy a teacher's configuration and weights into this folder, which then suffices to evaluate the run.

        Raises:
            LabError: the folder for the copy is a symbolic link.
            OSError: a file cannot be copied.
        """
        copy = RunFolder(self.output(self.teacher))
        atomic.copy(teacher.config, copy.config)
        atomic.copy(teacher.weights if teacher.weights.is_file() else teacher.checkpoint("best"), copy.weights)

    def checkpoint(self, name: str) -> Path:
        """Return the path of a checkpoint.

        Args:
            name: "best" (the last checkpoint if nothing was validated), "last", or a path.

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
            f"{self.best}, the checkpoint of the best epoch {epoch}, is missing: bring it back, "
            f"or use --ckpt last{weights}"
        )

    @property
    def _best_epoch(self) -> Any:
        try:
            return json.loads(read_text(self.metrics)).get("best_epoch")
        except (OSError, ValueError, AttributeError):  # the run has not finished, or the file is damaged
            return None

    def read_config(self) -> dict[str, Any]:
        """Read the configuration to instantiate the run: all its `_target_`s are on the allow-list or trusted.

        Raises:
            LabError: see `read_unchecked_config`; or a `_target_` is not allowed.
        """
        config = self.read_unchecked_config()
        check_targets(config, self.config, self.trusted)
        return config

    def read_unchecked_config(self) -> dict[str, Any]:
        """Read the configuration to look up settings; do not instantiate anything from it.

        Old names of classes are replaced by current ones. `trust` is taken from this object; the value in the file is
        ignored.

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
        return {**rename_targets(config), "trust": list(self.trusted)}

    def read_faults(self) -> dict[str, Any] | None:
        """Read the description of the corruptions of the training data; None if there are none.

        Raises:
            LabError: the file is damaged.
        """
        return self._read_object(self.faults, "does not describe the corruptions", _RESTORE)

    def read_metadata(self) -> dict[str, Any] | None:
        """Read the metadata of the data; None if an early version of losslab trained the run.

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

    @property
    def launch_dir(self) -> Path | None:
        """The working directory of the training, which relative paths in the configuration refer to."""
        try:
            folder = read_yaml(self.path / ".hydra" / "hydra.yaml")["hydra"]["runtime"]["cwd"]
        except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: it is used only for a hint
            return None
        return Path(folder) if isinstance(folder, str) and folder and "\0" not in folder else None


def default_name(model: str, data: str, loss: str, seed: int, *corruptions: str | None) -> str:
    """Return the default name of a run: MODEL-DATA-LOSS-sSEED, with DATA such as digits+symmetric.

    Args:
        model: the choice of the configuration group.
        data: the choice of the configuration group.
        loss: the choice of the configuration group.
        seed: the seed of the run.
        corruptions: the choices of imbalance and noise; None and "none" are left out.
    """
    chosen = [choice for choice in corruptions if choice not in (None, "none")]
    return f"{model}-{'+'.join((data, *chosen))}-{loss}-s{seed}"


def default_run_dir(name: str, job: str | None = None) -> str:
    """Return outputs/NAME/TIMESTAMP, which is unique, or outputs/NAME/JOB for a cluster job."""
    return f"outputs/{name}/{job or timestamp()}"


def default_sweep_dir() -> str:
    """Return outputs/sweep-TIMESTAMP."""
    return f"outputs/sweep-{timestamp()}"


def timestamp() -> str:
    """Return the time to the second, and four random characters, since runs may start in the same second."""
    return f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{secrets.token_hex(2)}"


def display_path(path: Path) -> Path:
    """Return a path relative to the working directory, if it is inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
