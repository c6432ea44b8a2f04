"""The rank of this process, and the process group in which the ranks of a run meet.

The ranks are started by losslab itself (`spawn`), by torchrun, by SLURM's srun or by submitit. torchrun's environment
variables name the rank; without them SLURM's do.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from losslab.errors import LabError
from losslab.training.distributed.signals import exit_on_ctrl_c

_SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
_SUBMITIT = tuple(f"SUBMITIT_LOCAL_{name}" for name in ("NTASKS", "JOB_NUM_NODES", "GLOBALID", "LOCALID", "NODEID"))
"""Tasks, nodes, rank, local rank and node rank, as SLURM and as submitit's local executor name them."""
_MAX_STEP = 4_000_000_000
"""SLURM gives larger step ids to a batch script and to an interactive shell."""


@dataclass(frozen=True)
class RankInfo:
    """The rank of a process: `rank` of `world_size` in all, `local_rank` of `local_world_size` on this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    node_rank: int = 0

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that torchrun sets for this rank."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "GROUP_RANK": str(self.node_rank),
        }


def current_rank(variables: Mapping[str, str] | None = None) -> RankInfo:
    """The rank of this process; rank 0 of 1 if neither torchrun nor SLURM started it.

    Args:
        variables: environment variables; None for those of this process.

    Raises:
        LabError: the variables are not numbers, or contradict each other.
    """
    variables = os.environ if variables is None else variables
    if "RANK" not in variables or "WORLD_SIZE" not in variables:
        return _slurm_rank(variables)
    try:
        rank, world_size = int(variables["RANK"]), int(variables["WORLD_SIZE"])
        info = RankInfo(
            rank,
            world_size,
            int(variables.get("LOCAL_RANK", rank)),
            int(variables.get("LOCAL_WORLD_SIZE", world_size)),
            int(variables.get("GROUP_RANK", 0)),
        )
    except ValueError as error:
        raise LabError(
            f"RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE must be whole numbers ({error}): unset them"
        ) from error
    if not 0 <= rank < world_size or not 0 <= info.local_rank < info.local_world_size <= world_size:
        raise LabError(f"RANK={rank}, WORLD_SIZE={world_size} and their LOCAL_ ones contradict each other: unset them")
    return info


def _slurm_rank(variables: Mapping[str, str]) -> RankInfo:
    """The rank of a task that srun or submitit started.

    A batch script and an interactive shell have SLURM_NTASKS too, but are one process: only the variables of a job
    step, which srun starts, describe processes that run.
    """
    names = _SUBMITIT if _SUBMITIT[2] in variables else _SLURM
    if names[2] not in variables:
        return RankInfo()
    tasks, nodes, rank, local_rank, node_rank = (int(variables.get(name, "0")) for name in names)
    if tasks < 2:
        return RankInfo()
    nodes = max(1, nodes)
    if tasks % nodes:
        raise LabError(f"SLURM started {tasks} tasks on {nodes} nodes: start equally many on each (--ntasks-per-node)")
    return RankInfo(rank, tasks, local_rank, tasks // nodes, node_rank)


def job_id() -> str | None:
    """The id of the torchrun or SLURM job that this process belongs to; None without one.

    A single process in a batch script or a shell has none, because other runs may follow it there.
    """
    job, step = os.environ.get("SLURM_JOB_ID"), int(os.environ.get("SLURM_STEP_ID", "-1"))
    if job and (current_rank().world_size > 1 or 0 <= step < _MAX_STEP):
        return f"slurm-{job}.{step}" if step > 0 else f"slurm-{job}"
    elastic = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return f"torchrun-{elastic}" if elastic != "none" else None


def is_restart() -> bool:
    """Whether SLURM or torchrun has restarted this job, so that its run may already have begun."""
    counts = [os.environ.get(name) for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")]
    return any(count not in {None, "", "0"} for count in counts)


def rendezvous_address(variables: Mapping[str, str], *, one_machine: bool) -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT for the tasks of a SLURM step: its first machine, and a port of its own."""
    if "SUBMITIT_LOCAL_JOB_ID" in variables:
        address, port = "127.0.0.1", 20_000 + int(variables["SUBMITIT_LOCAL_JOB_ID"]) % 40_000
    else:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # noqa: PLC0415

        first = SLURMEnvironment.resolve_root_node_address(variables.get("SLURM_STEP_NODELIST", "127.0.0.1"))
        address = "127.0.0.1" if one_machine else first
        job, step = (int(variables.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        port = 12_000 + (job + 1009 * step) % 20_000  # below the ports that systems give to outgoing connections
    return {"MASTER_ADDR": address, "MASTER_PORT": variables.get("MASTER_PORT", str(port))}


def init_process_group(info: RankInfo, store: str | None = None) -> None:
    """Join the other ranks; does nothing for a single process, or if this has already happened.

    Collectives of CPU tensors use gloo, those of GPU tensors NCCL.

    Args:
        info: the rank of this process.
        store: path of the file through which the ranks find each other; None for torchrun's or SLURM's address.
    """
    import torch  # noqa: PLC0415
    from torch import distributed  # noqa: PLC0415
    from torch.distributed.distributed_c10d import PrefixStore  # noqa: PLC0415
    from torch.distributed.rendezvous import rendezvous  # noqa: PLC0415

    if info.world_size == 1 or distributed.is_initialized():
        return
    one_machine = info.local_world_size == info.world_size
    os.environ.update(info.variables)
    _set_lightning_rank(info.rank)
    if store is None and "MASTER_ADDR" not in os.environ:
        os.environ.update(rendezvous_address(os.environ, one_machine=one_machine))
    if sys.platform == "linux" and one_machine:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # otherwise gloo looks up this machine's host name
    if store is None and "OMP_NUM_THREADS" not in os.environ:  # not every SLURM binds tasks to their cores
        torch.set_num_threads(min(torch.get_num_threads(), int(os.environ.get("SLURM_CPUS_PER_TASK", "1024"))))
    # Lightning chooses the GPU of this rank, once it knows trainer.devices.
    cuda = torch.cuda.is_available() and torch.cuda.device_count() >= info.local_world_size
    # torchrun keeps its store across restarts, and in it the addresses of processes that are gone.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    with exit_on_ctrl_c():  # the other ranks may never come
        shared, _, _ = next(rendezvous(f"file://{store}" if store else "env://", info.rank, info.world_size))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=PrefixStore(f"attempt {attempt}", shared),
            rank=info.rank,
            world_size=info.world_size,
            timeout=timedelta(minutes=30),
        )


def _set_lightning_rank(rank: int) -> None:
    # Lightning reads the rank when it is imported: in a forked process that was before the rank was known.
    from lightning.fabric.utilities.rank_zero import rank_zero_only as fabric  # noqa: PLC0415
    from lightning_utilities.core.rank_zero import rank_zero_only as utilities  # noqa: PLC0415

    for function in (fabric, utilities):
        function.rank = rank  # type: ignore[attr-defined]


def broadcast_decision(info: RankInfo, decide: Callable[[], str]) -> str:
    """Call `decide` on rank 0 → its result on every rank.

    Raises:
        LabError: on every rank, where `decide` raised a LabError or an OSError.
    """
    if info.world_size == 1:
        return decide()
    from torch import distributed  # noqa: PLC0415

    init_process_group(info)
    decision: list[str | None] = [None, None]
    if info.rank == 0:
        try:
            decision[0] = decide()
        except (LabError, OSError) as error:
            decision[1] = str(error)
    distributed.broadcast_object_list(decision, src=0)
    if decision[1] is not None:
        raise LabError(decision[1])
    return str(decision[0])


def barrier_before_exit(seconds: float = 10.0) -> None:
    """Wait for all ranks, at most some seconds, before this rank ends with an error.

    torchrun and SLURM end the other ranks when one has failed, and rank 0 may still have to save.
    """
    if current_rank().world_size == 1:
        return
    import torch  # noqa: PLC0415
    from torch import distributed  # noqa: PLC0415

    with contextlib.suppress(RuntimeError):  # a rank is gone, or does not come
        work = distributed.all_reduce(torch.zeros(1), async_op=True)
        if work is not None:
            work.wait(timedelta(seconds=seconds))


def requested_processes(trainer: Mapping[str, Any], count_gpus: Callable[[], int]) -> int:
    """The number of processes on this machine that a trainer's accelerator and devices ask for, as Lightning counts.

    Args:
        trainer: the `trainer` config group.
        count_gpus: only called where the answer depends on it.

    Raises:
        LabError: `devices` has none of the forms that Lightning knows, or `num_nodes` is not 1.
    """
    devices, accelerator = trainer.get("devices", 1), trainer.get("accelerator", "auto")
    nodes = trainer.get("num_nodes", 1)
    if nodes != 1:
        raise LabError(
            f"trainer.num_nodes={nodes}: start the processes with torchrun --nnodes {nodes}, or use trainer=slurm"
        )
    if devices in (1, "1", None) or accelerator == "mps":
        return 1
    if isinstance(devices, str) and devices.strip("-").isdigit():
        devices = int(devices)
    if devices in ("auto", -1):
        on_gpu = accelerator in {"gpu", "cuda"} or (accelerator == "auto" and count_gpus() > 0)
        return max(1, count_gpus()) if on_gpu else 1
    if isinstance(devices, str):
        devices = [part for part in devices.split(",") if part.strip().isdigit()]
    count = devices if isinstance(devices, int) else len(devices) if isinstance(devices, Sequence) else 0
    if count < 1:
        raise LabError(f"trainer.devices must be a number above 0, a list of GPUs, or auto: got {trainer['devices']!r}")
    return count
