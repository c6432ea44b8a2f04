"""One run's folder.

How runs and their folders are called.
"""

import json
import secrets
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from losslab.errors import LabError
from losslab.io import atomic, untrusted
from losslab.io.json_files import read_json
from losslab.io.untrusted import read_text, read_yaml
from losslab.runs import trust
from losslab.runs.config import amiss

_BRING_BACK = "bring the file back, or train the run again"
_DELETE = "delete it, and the data themselves are read instead"


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
        """Copy what is needed of the teacher's folder, so that this one alone is enough to evaluate.

        Raises:
            LabError: the place for it is a link.
            OSError: it cannot be copied.
        """
        untrusted.check_output_path(self.teacher, self.path)
        atomic.copy(taught_by.config, self.teacher / taught_by.config.name)
        weights = taught_by.weights if taught_by.weights.is_file() else taught_by.checkpoint("best")
        atomic.copy(weights, self.teacher / taught_by.weights.name)

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
        raise LabError(f"{self.best}, of the best epoch {epoch}, is gone: bring it back, or name --ckpt last{plain}")

    @property
    def _best_epoch(self) -> Any:
        try:
            return json.loads(read_text(self.metrics)).get("best_epoch")
        except (OSError, ValueError, AttributeError):  # not finished, or damaged: it says nothing
            return None

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration, of which the run can be made again: it names nothing but what is trusted.

        Raises:
            LabError: as `read_settings` does; or it names what is neither on the list nor trusted.
        """
        config = self.read_settings()
        trust.check(config, self.config)
        return config

    def read_settings(self) -> dict[str, Any]:
        """The resolved configuration to be looked at alone: nothing may be made of it, whoever wrote it.

        What it says of whom to trust is left out.

        Raises:
            LabError: this is no run folder, or its configuration is damaged or none.
        """
        if not self.config.exists():
            inside = sorted(run for depth in ("*", "*/*") for run in self.path.glob(f"{depth}/{self.config.name}"))
            hint = f", but it holds runs: name one of them, such as {inside[0].parent}" if inside else ""
            raise LabError(f"{self.path} is no run folder: it holds no {self.config.name}{hint}")
        config: dict[str, Any] = read_json(self.config, _BRING_BACK)
        wrong = amiss(config)
        if wrong is not None:
            raise LabError(f"{self.config} is no configuration of a run: {wrong}; {_BRING_BACK}")
        config.pop("trust", None)
        return config

    def read_faults(self) -> dict[str, Any] | None:
        """What was made wrong with the training data; None where nothing was.

        Raises:
            LabError: the file is damaged.
        """
        if not self.faults.exists():
            return None
        faults: dict[str, Any] = read_json(self.faults, _BRING_BACK)
        if not isinstance(faults, dict):
            raise LabError(f"{self.faults} does not say what was made wrong with the data: {_BRING_BACK}")
        return faults

    def read_data(self) -> dict[str, Any] | None:
        """What is known of the data; None in the folder of an older run.

        Raises:
            LabError: the file is damaged.
        """
        if not self.data.exists():
            return None
        known: dict[str, Any] = read_json(self.data, _DELETE)
        if not isinstance(known, dict):
            raise LabError(f"{self.data} does not say what is known of the data: {_DELETE}")
        return known

    @property
    def started_in(self) -> Path | None:
        """The folder that the run was started in, to which relative paths in its configuration refer."""
        try:
            folder = read_yaml(self.path / ".hydra" / "hydra.yaml")["hydra"]["runtime"]["cwd"]
        except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: it only serves to help
            return None
        return Path(folder) if isinstance(folder, str) and folder and "\0" not in folder else None


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
