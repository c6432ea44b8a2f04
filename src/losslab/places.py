"""Where the jobs of a sweep may run: how many at a time, and on which GPUs. Imports no torch."""

from collections.abc import Collection
from typing import Any

from losslab import asking
from losslab.data.machine import cores
from losslab.errors import LabError


class Places:
    """What this machine has for jobs.

    Args:
        n_jobs: how many run at a time. None for one on each GPU, or one where there is none; -1 for one on each core.

    Raises:
        LabError: it is no such number.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        if not isinstance(n_jobs, int | None) or n_jobs == 0 or (n_jobs is not None and n_jobs < -1):
            message = f"hydra.launcher.n_jobs must be 1 or more, -1 for all cores, or null: got {n_jobs!r}"
            raise LabError(message)
        self.n_jobs = n_jobs
        self._gpus: list[str] | None = None

    def gpus(self) -> list[str]:
        """The GPUs that jobs may have."""
        if self._gpus is None:
            self._gpus = asking.gpus()
        return self._gpus

    def at_a_time(self, trainer: Any) -> int:
        """How many jobs run at a time."""
        if self.n_jobs is None:
            return max(1, len(self.gpus())) if trainer.get("accelerator", "auto") not in {"cpu", "mps"} else 1
        return cores() if self.n_jobs == -1 else self.n_jobs

    def gpus_for(self, trainer: Any, world: int, taken: Collection[list[str]]) -> list[str] | None:
        """The GPUs for a job: [] where it takes none or says which itself, None where it must wait.

        Args:
            trainer: its configuration.
            world: of so many processes.
            taken: those that each job has that runs.
        """
        devices = trainer.get("devices", 1)
        chosen = not isinstance(devices, int | str) or (isinstance(devices, str) and "," in devices)
        if trainer.get("accelerator", "auto") in {"cpu", "mps"} or chosen or not self.gpus():
            return []
        load = {gpu: sum(gpu in each for each in taken) for gpu in self.gpus()}
        freest = sorted(self.gpus(), key=lambda gpu: load[gpu])[:world]
        crowded = (self.n_jobs or 0) * world > len(self.gpus())  # then they were asked to share
        return freest if not taken or crowded or all(load[gpu] == 0 for gpu in freest) else None
