"""How runs and their folders are called."""

import secrets
import time
from pathlib import Path


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
