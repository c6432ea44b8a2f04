"""The runs of one part of a study, which are a sweep of their own. Imports no torch."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from losslab.errors import LabError, NonFiniteError
from losslab.runs.sweep_summary import State
from losslab.sweep.composing import Composer
from losslab.sweep.launcher import Launcher
from losslab.sweep.state import Job, Sweep
from losslab.training.config import ProcessContext


class Run(NamedTuple):
    """A run of a study that has ended."""

    metrics: Mapping[str, float]
    """The final metrics; empty if the run diverged."""
    seconds: float
    folder: Path | None
    config: Mapping[str, Any]
    """The resolved configuration."""

    def value(self, metric: str) -> float | None:
        """Return the value of a metric; None if the run diverged. Raise a LabError if the run has no such metric."""
        if not self.metrics:
            return None
        if metric not in self.metrics:
            split = metric.partition("/")[0]
            names = sorted(name.partition("/")[2] for name in self.metrics if name.startswith(f"{split}/"))
            raise LabError(f"these runs have no metric {metric}: set study.metric to one of {', '.join(names)}")
        return self.metrics[metric]


class Stage:
    """The runs of one part of a study, in a sweep of their own."""

    def __init__(self, folder: Path, hydra_context: HydraContext, task: TaskFunction, config: DictConfig) -> None:
        self._context: ProcessContext = task.context  # type: ignore[attr-defined]
        config = config.copy()
        with read_write(config), open_dict(config):
            config.hydra.sweep.dir = str(folder)
        # A launcher replaces a function of the context that it gets.
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=dataclasses.replace(hydra_context), task_function=task, config=config
        )
        if not isinstance(self._launcher, Launcher):
            raise LabError("a study needs the launcher of losslab: leave out hydra/launcher=")
        self._composer = Composer(hydra_context.config_loader.load_sweep_config, config)
        self._sweep: Sweep | None = None
        self._count = 0
        self.pace = 0.0
        """The seconds per run of the latest runs, which several at a time or as one group may have; 0 before them."""

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Compose the configuration of a job without training it."""
        return self._composer.compose(list(overrides), with_hydra=False)

    def choices(self, overrides: Sequence[str]) -> Mapping[str, Any]:
        """Return the choice of each group of the configuration."""
        return self._composer.template(list(overrides))[0].choices

    def run(self, jobs: Sequence[Sequence[str]], *, is_check: bool = False) -> list[Run]:
        """Run jobs, and return their results in order. A run that diverged is a result like any other.

        If the runs check the configurations, a loss that is not finite before the first step is an error.

        Raises:
            LabError: a job failed for another reason.
        """
        if not jobs:
            return []
        self._context.sweep = self._sweep
        start = time.monotonic()
        self._launcher.launch([list(job) for job in jobs], self._count)
        elapsed = time.monotonic() - start
        self._sweep = self._context.sweep
        self._sweep.write()
        ended = self._sweep.jobs[self._count :]
        self._count += len(jobs)
        new = [job for job in ended if not job.reused]
        # Of runs that an earlier command trained, only their own durations are known.
        self.pace = elapsed / len(new) if new else sum(job.seconds for job in ended) / len(ended)
        return [self._result(job, is_check=is_check) for job in ended]

    @staticmethod
    def _result(job: Job, *, is_check: bool) -> Run:
        if job.state is State.DONE:
            return Run(job.metrics, job.seconds, job.folder, job.config or {})
        reason = str(job.reason)
        is_wrong = is_check and NonFiniteError.is_before_training(reason)
        if job.state is State.FAILED and NonFiniteError.is_message(reason) and not is_wrong:
            return Run({}, job.seconds, job.folder, job.config or {})
        raise LabError(f"{' '.join(job.overrides)}: {reason}")
