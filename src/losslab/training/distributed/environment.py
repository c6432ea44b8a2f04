"""The rank of this process, and the process group (of torch.distributed) of the ranks of a run.

The ranks are started by losslab (`spawn`), torchrun, srun of SLURM, or submitit. The rank is read from the environment
variables of torchrun, or else from those of SLURM.
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
"""The variables of SLURM and of submitit's local executor: number of tasks and nodes, rank, local rank, node rank."""
_ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
_STRATEGIES = {
    *("auto", "single_device", "SingleDeviceStrategy"),
    *("ddp", "DDPStrategy", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"),
}
"""Names and classes of the supported strategies."""
_MAX_STEP = 4_000_000_000
"""The largest id of a SLURM step that srun started; steps of batch scripts and interactive shells have larger ids."""


@dataclass(frozen=True)
class RankInfo:
    """The rank of a process among all ranks, its local rank on its machine, and the node rank of this machine."""

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
    """Return the rank that environment variables give, by default those of this process.

    If neither torchrun nor SLURM started the process, it is rank 0 of 1.

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
            f"RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE must be integers ({error}): unset them"
        ) from error
    if not 0 <= rank < world_size or not 0 <= info.local_rank < info.local_world_size <= world_size:
        raise LabError(
            f"RANK={rank} and WORLD_SIZE={world_size} contradict each other, or LOCAL_RANK={info.local_rank} and "
            f"LOCAL_WORLD_SIZE={info.local_world_size}: unset them"
        )
    return info


def _slurm_rank(variables: Mapping[str, str]) -> RankInfo:
    """Return the rank of a task that srun or submitit started.

    Only the variables of a job step are read, because SLURM_NTASKS is also set in a batch script and in an interactive
    shell, which are one process.
    """
    names = _SUBMITIT if "SUBMITIT_LOCAL_GLOBALID" in variables else _SLURM
    if names is _SLURM and "SLURM_PROCID" not in variables:
        return RankInfo()
    tasks, nodes, rank, local_rank, node_rank = (int(variables.get(name, "0")) for name in names)
    if tasks < 2:
        return RankInfo()
    nodes = max(1, nodes)
    if tasks % nodes:
        raise LabError(
            f"SLURM started {tasks} tasks on {nodes} nodes: start the same number on each (--ntasks-per-node)"
        )
    return RankInfo(rank, tasks, local_rank, tasks // nodes, node_rank)


def job_id() -> str | None:
    """Return the id of the torchrun or SLURM job of this process; None outside of a job.

    For a single process in a batch script or shell it is None too, because the script may start several runs.
    """
    job, step = os.environ.get("SLURM_JOB_ID"), int(os.environ.get("SLURM_STEP_ID", "-1"))
    if job and (current_rank().world_size > 1 or 0 <= step < _MAX_STEP):
        return f"slurm-{job}.{step}" if step > 0 else f"slurm-{job}"
    elastic = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return f"torchrun-{elastic}" if elastic != "none" else None


def is_restart() -> bool:
    """Return whether SLURM or torchrun has restarted this job. Then the run folder may already exist."""
    counts = [os.environ.get(name) for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")]
    return any(count not in {None, "", "0"} for count in counts)


def rendezvous_address(variables: Mapping[str, str], *, one_machine: bool) -> dict[str, str]:
    """Return MASTER_ADDR and MASTER_PORT for a SLURM step: its first machine, and a port computed from its ids."""
    if "SUBMITIT_LOCAL_JOB_ID" in variables:
        address, port = "127.0.0.1", 20_000 + int(variables["SUBMITIT_LOCAL_JOB_ID"]) % 40_000
    else:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # noqa: PLC0415

        first = SLURMEnvironment.resolve_root_node_address(variables.get("SLURM_STEP_NODELIST", "127.0.0.1"))
        address = "127.0.0.1" if one_machine else first
        job, step = (int(variables.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        port = 12_000 + (job + 1009 * step) % 20_000  # below the usual ports of outgoing connections
    return {"MASTER_ADDR": address, "MASTER_PORT": variables.get("MASTER_PORT", str(port))}


def init_process_group(info: RankInfo, store: str | None = None) -> None:
    """Join the process group, unless there is a single process or this process has already joined.

    Collectives of CPU tensors use gloo, those of GPU tensors use NCCL. The ranks find each other through the file store
    at the path `store`, or else at the address set by torchrun or SLURM.
    """
    if info.world_size == 1:
        return
    import torch  # noqa: PLC0415
    from lightning.fabric.utilities.rank_zero import rank_zero_only as fabric_rank_zero_only  # noqa: PLC0415
    from lightning_utilities.core.rank_zero import rank_zero_only  # noqa: PLC0415
    from torch import distributed  # noqa: PLC0415
    from torch.distributed.distributed_c10d import PrefixStore  # noqa: PLC0415
    from torch.distributed.rendezvous import rendezvous  # noqa: PLC0415

    if distributed.is_initialized():
        return
    one_machine = info.local_world_size == info.world_size
    os.environ.update(info.variables)
    for function in (fabric_rank_zero_only, rank_zero_only):
        # Lightning reads the rank when it is imported, which is too early in a process forked from a server.
        function.rank = info.rank  # type: ignore[attr-defined]
    if store is None and "MASTER_ADDR" not in os.environ:
        os.environ.update(rendezvous_address(os.environ, one_machine=one_machine))
    if sys.platform == "linux" and one_machine:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # otherwise gloo looks up this machine's host name
    if store is None and "OMP_NUM_THREADS" not in os.environ:  # SLURM may not bind tasks to their cores
        torch.set_num_threads(min(torch.get_num_threads(), int(os.environ.get("SLURM_CPUS_PER_TASK", "1024"))))
    # Lightning chooses the GPU of this rank later, according to trainer.devices.
    cuda = torch.cuda.is_available() and torch.cuda.device_count() >= info.local_world_size
    # torchrun keeps its store across restarts, including the addresses of processes that have ended.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    with exit_on_ctrl_c():  # the other ranks may never join
        shared, _, _ = next(rendezvous(f"file://{store}" if store else "env://", info.rank, info.world_size))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=PrefixStore(f"attempt {attempt}", shared),
            rank=info.rank,
            world_size=info.world_size,
            timeout=timedelta(minutes=30),
        )


def broadcast_decision(info: RankInfo, decide: Callable[[], str]) -> str:
    """Call `decide` on rank 0 and return its result on every rank.

    Raises:
        LabError: `decide` raised a LabError or an OSError. All ranks raise it.
    """
    if info.world_size == 1:
        return decide()
    from torch import distributed  # noqa: PLC0415

    init_process_group(info)
    decision: list[str | None] = [None, None]  # the result and the error message of rank 0
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
    """Wait a limited time for all ranks before this rank ends with an error.

    torchrun and SLURM end the other ranks when one has failed, but rank 0 may need time to save.
    """
    if current_rank().world_size == 1:
        return
    import torch  # noqa: PLC0415
    from torch import distributed  # noqa: PLC0415

    with contextlib.suppress(RuntimeError):  # a rank has ended, or may never join
        work = distributed.all_reduce(torch.zeros(1), async_op=True)  # serves as a barrier with a time limit
        if work is not None:
            work.wait(timedelta(seconds=seconds))


def check_strategy(trainer: Mapping[str, Any], processes: int = 1) -> None:
    """Raise a LabError unless losslab can run accelerator and strategy in so many processes. Import and start nothing.

    losslab starts the processes itself, and gives each a share of every batch. Strategies that start processes, or that
    divide the network among them, do not fit. Classes of other packages are not checked.
    """
    strategy, accelerator = trainer.get("strategy", "auto"), trainer.get("accelerator", "auto")
    if isinstance(accelerator, str) and accelerator not in _ACCELERATORS:
        raise LabError(f"trainer.accelerator={accelerator}: choose one of {', '.join(_ACCELERATORS)}")
    key, name = "strategy", strategy
    if isinstance(strategy, Mapping):
        package, _, name = str(strategy.get("_target_")).rpartition(".")
        if not package.startswith(("lightning.", "pytorch_lightning.")):
            return
        if strategy.get("start_method", "popen") != "popen":
            key, name = "strategy.start_method", strategy["start_method"]
    if name not in _STRATEGIES or (processes > 1 and str(name).lower().startswith("single")):
        raise LabError(
            f"trainer.{key}={name or 'null'} is not supported: leave it out, and choose trainer=ddp (all GPUs), "
            "trainer=ddp_cpu (two processes on the CPU) or a single process (trainer=gpu, trainer=cpu)"
        )


def requested_processes(trainer: Mapping[str, Any], count_gpus: Callable[[], int]) -> int:
    """Return the number of processes that `accelerator` and `devices` of a trainer request, by Lightning's rules.

    `count_gpus` returns the number of GPUs. It is called only if needed, because it may start a process.

    Raises:
        LabError: `devices` is not valid in Lightning, `num_nodes` is not 1, or the strategy is not supported.
    """
    check_strategy(trainer)  # before the devices are counted, because Lightning's rules fail for other accelerators
    count = _count_processes(trainer, count_gpus)
    check_strategy(trainer, count)
    return count


def _count_processes(trainer: Mapping[str, Any], count_gpus: Callable[[], int]) -> int:
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
    count = len(devices) if isinstance(devices, Sequence) else devices
    if not isinstance(count, int) or count < 1:
        raise LabError(f"trainer.devices must be a number above 0, a list of GPUs, or auto: got {trainer['devices']!r}")
    return count
