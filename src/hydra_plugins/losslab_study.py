"""The module in which Hydra finds the sweeper of a study: it takes only classes that are defined in hydra_plugins.

Hydra imports this module at the start of every command, so the study itself is imported only when it runs.
"""

from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StudySweeper(Sweeper):
    """The sweeper of `conf/hydra/sweeper/study.yaml`, see `losslab.study.sweeper.StudySweeper`."""

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Import and set up the sweeper."""
        from losslab.study import sweeper  # noqa: PLC0415

        self._sweeper = sweeper.StudySweeper(**self._arguments)
        self._sweeper.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run the study."""
        return self._sweeper.sweep(arguments)
