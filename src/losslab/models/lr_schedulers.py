"""What a learning-rate scheduler must be told of the run it is in."""

import inspect
from collections.abc import Callable
from math import inf
from typing import Any

from lightning import Trainer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from losslab.errors import LabError


def missing_arguments(scheduler: Callable[..., Any], mode: str, steps: Callable[[], int]) -> dict[str, Any]:
    """What a scheduler asks for, the configuration leaves open, and only the run knows.

    Args:
        scheduler: makes one of an optimizer, and perhaps of more.
        mode: whether the monitored metric is better "min" or "max".
        steps: says how many the run has; only asked where the answer matters.
    """
    given = getattr(scheduler, "keywords", {})
    asked = set(inspect.signature(scheduler).parameters) - set(given)
    found: dict[str, Any] = dict.fromkeys(asked & {"total_steps", "T_max"})
    if found:
        found = dict.fromkeys(found, steps())
    if getattr(scheduler, "func", scheduler) is ReduceLROnPlateau and "mode" in asked:
        found["mode"] = mode
    return found


def total_steps(trainer: Trainer) -> int:
    """How many steps a run has.

    Raises:
        LabError: it has no end.
    """
    steps = trainer.estimated_stepping_batches
    if steps == inf:
        raise LabError("this scheduler needs an end: set trainer.max_epochs or trainer.max_steps")
    return int(steps)


def monitor_config(scheduler: Any, monitor: str, trainer: Trainer) -> dict[str, Any]:
    """What Lightning is told of a scheduler that waits for a metric; nothing of any other."""
    if not isinstance(scheduler, ReduceLROnPlateau):
        return {}
    # It must not wait for a metric in an epoch that is not validated, nor count an old one twice.
    return {"monitor": monitor, "frequency": trainer.check_val_every_n_epoch or 1}
