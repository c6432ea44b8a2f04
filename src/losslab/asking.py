"""Questions that need torch, from a process that does without: they are asked of a child."""

import os
from collections.abc import Callable
from typing import Any

from losslab.child import Surroundings
from losslab.errors import LabError
from losslab.processes import Run, watch


def ask(task: Callable[..., Any], *arguments: Any) -> Any:
    """What a task returns, which needs torch.

    Raises:
        LabError: the task failed.
    """
    run = Run(task, [arguments], Surroundings())
    while run.outcome is None:
        watch([run], 1)
    if run.outcome.reason is not None:
        raise LabError(run.outcome.reason)
    return run.outcome.value


def gpus() -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES can pick one of the GPUs that are seen here."""
    count: int = ask(_count_gpus)
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible if len(visible) == count else [str(number) for number in range(count)]


def _count_gpus() -> int:
    import torch  # noqa: PLC0415

    return torch.cuda.device_count()
