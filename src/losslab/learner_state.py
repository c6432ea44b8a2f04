"""What a learner leaves in a checkpoint beside its weights, for an interrupted epoch to go on."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, distributed

from losslab.metrics import RunningMean


def of(averages: Iterable[RunningMean], values: dict[str, float], fresh: set[str], loader: Any) -> dict[str, Any]:
    """The state of a learner, as resumable.py wants it; all processes of a run must ask for it together.

    Args:
        averages: over the training examples of this epoch so far.
        values: the newest ones of the run.
        fresh: the names of those that are of this epoch.
        loader: of the training examples.
    """
    sums = torch.stack([average.sums for average in averages])
    return {
        "sums": _of_all_processes(sums),  # (processes, averages, 2)
        "values": dict(values),
        "fresh": sorted(fresh),
        "loader": loader.state_dict(),
    }


def take_up(state: Mapping[str, Any], averages: Iterable[RunningMean], rank: int) -> None:
    """Go on with the averages that the process of this rank had; a process that there was not begins with none."""
    of_processes = state["sums"]
    if rank < len(of_processes):
        for average, sums in zip(averages, of_processes[rank], strict=True):
            average.sums = sums


def _of_all_processes(tensor: Tensor) -> Tensor:
    """The tensors of one shape that the processes of a run have → (processes, ...), on the CPU."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return tensor[None].cpu()
    everyones = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyones, tensor)
    return torch.stack(everyones).cpu()
