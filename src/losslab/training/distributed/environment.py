"""What SLURM says of processes that srun starts together, and where they meet; and submitit, on one machine.

Where this process stands among those that train one run together. Imports torch only to bring them together.

The processes ("ranks") are started by the command itself, by torchrun, or by SLURM; whoever it was, they find their
place in torchrun's environment variables.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from losslab.errors import LabError
from losslab.training.distributed.signals import ending_at_once

_SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
_SUBMITIT = tuple(f"SUBMITIT_LOCAL_{name}" for name in ("NTASKS", "JOB_NUM_NODES", "GLOBALID", "LOCALID", "NODEID"))
"""How SLURM, and submitit's imitation of it on one machine, name what a Step holds."""
_NO_STEP = 4_000_000_000
"""Above it stand what SLURM counts as steps too: a batch script, an interactive shell."""


class Step(NamedTuple):
    """Several tasks that were started together, and which of them this process is."""

    tasks: int
    nodes: int
    rank: int
    local_rank: int
    node: int

    @property
    def tasks_a_node(self) -> int:
        """Equally many on each."""
        return self.tasks // max(1, self.nodes)


def step(variables: Mapping[str, str]) -> Step | None:
    """The step that this process is a task of; None where it is none, or the only one.

    Raises:
        LabError: there are more tasks on one node than on another.
    """
    # A batch script or a shell of SLURM's knows how many tasks the job may have (SLURM_NTASKS), but is one process:
    # only the numbers of the step, which srun began, are those of processes that run.
    names = _SUBMITIT if _SUBMITIT[2] in variables else _SLURM
    if names[2] not in variables:
        return None
    found = Step(*(int(variables.get(name, "0")) for name in names))
    if found.tasks < 2:
        return None
    if found.tasks % max(1, found.nodes):
        raise LabError(
            f"SLURM started {found.tasks} tasks on {found.nodes} nodes: start equally many on each (--ntasks-per-node)"
        )
    return found


def job(*, several: bool) -> str | None:
    """What SLURM calls the job that this process belongs to, and which srun of it, if it is not the first.

    Args:
        several: whether this is one process of several. One alone in a batch script or in a shell has no name: others
            may follow it there.
    """
    name = os.environ.get("SLURM_JOB_ID") if several or 0 <= _number() < _NO_STEP else None
    return f"{name}.{_number()}" if name and _number() > 0 else name


def _number() -> int:
    return int(os.environ.get("SLURM_STEP_ID", "-1"))


def meeting(variables: Mapping[str, str], *, one_machine: bool) -> dict[str, str]:
    """Where the tasks of a step meet: on its first machine, at a port of its own, as other steps may run there."""
    if "SUBMITIT_LOCAL_JOB_ID" in variables:
        address, port = "127.0.0.1", 20_000 + int(variables["SUBMITIT_LOCAL_JOB_ID"]) % 40_000
    else:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # noqa: PLC0415

        first = SLURMEnvironment.resolve_root_node_address(variables.get("SLURM_STEP_NODELIST", "127.0.0.1"))
        address = "127.0.0.1" if one_machine else first
        of_job, of_step = (int(variables.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        port = 12_000 + (of_job + 1009 * of_step) % 20_000  # below the ports that systems give to outgoing connections
    return {"MASTER_ADDR": address, "MASTER_PORT": variables.get("MASTER_PORT", str(port))}


@dataclass(frozen=True)
class Place:
    """A process's place: `rank` of `world` over all machines, `local_rank` of `local_world` on this one."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    node: int = 0

    @property
    def variables(self) -> dict[str, str]:
        """The place in torchrun's words."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_world),
            "GROUP_RANK": str(self.node),
        }


def here(environment: Mapping[str, str] | None = None) -> Place:
    """The place that the environment gives this process; alone where it says nothing.

    Raises:
        LabError: the variables are no numbers, or contradict each other.
    """
    variables = os.environ if environment is None else environment
    if "RANK" not in variables or "WORLD_SIZE" not in variables:
        return _in_slurm(variables)
    try:
        rank, world = int(variables["RANK"]), int(variables["WORLD_SIZE"])
        place = Place(
            rank,
            world,
            int(variables.get("LOCAL_RANK", rank)),
            int(variables.get("LOCAL_WORLD_SIZE", world)),
            int(variables.get("GROUP_RANK", 0)),
        )
    except ValueError as error:
        raise LabError(
            f"RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE must be whole numbers ({error}): unset them"
        ) from error
    if not 0 <= place.rank < place.world or not 0 <= place.local_rank < place.local_world <= place.world:
        raise LabError(f"RANK={rank}, WORLD_SIZE={world} and their LOCAL_ ones contradict each other: unset them")
    return place


def _in_slurm(variables: Mapping[str, str]) -> Place:
    found = step(variables)
    return (
        Place() if found is None else Place(found.rank, found.tasks, found.local_rank, found.tasks_a_node, found.node)
    )


def job_id() -> str | None:
    """What torchrun or SLURM calls the job that this process belongs to; None where nobody named it."""
    slurm = job(several=here().world > 1)
    elastic = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return f"slurm-{slurm}" if slurm else f"torchrun-{elastic}" if elastic != "none" else None


def restarted() -> bool:
    """Whether SLURM or torchrun has started this job again, so that what it does may be half done already."""
    counts = [os.environ.get(name) for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")]
    return any(count not in {None, "", "0"} for count in counts)


def join(place: Place, store: str | None = None) -> None:
    """Meet the other ranks, over the file `store` or else at torchrun's address; nothing to do when alone.

    Sums of tensors on the CPU go over gloo, those on GPUs over NCCL.
    """
    import torch  # noqa: PLC0415
    from torch import distributed  # noqa: PLC0415
    from torch.distributed.distributed_c10d import PrefixStore  # noqa: PLC0415
    from torch.distributed.rendezvous import rendezvous  # noqa: PLC0415

    if place.world == 1 or distributed.is_initialized():
        return
    os.environ.update(place.variables)
    _tell_lightning(place.rank)
    if store is None and "MASTER_ADDR" not in os.environ:
        os.environ.update(meeting(os.environ, one_machine=place.local_world == place.world))
    if sys.platform == "linux" and place.local_world == place.world:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else gloo asks the network who this machine is
    if store is None and "OMP_NUM_THREADS" not in os.environ:  # SLURM does not keep tasks apart everywhere
        torch.set_num_threads(min(torch.get_num_threads(), int(os.environ.get("SLURM_CPUS_PER_TASK", "1024"))))
    # Which GPU is this process's is for Lightning to say, once it knows trainer.devices.
    cuda = torch.cuda.is_available() and torch.cuda.device_count() >= place.local_world
    # Torchrun keeps its store when it starts the processes again, and with it the addresses of those that are gone.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    with ending_at_once():  # the others may never come
        shared, _, _ = next(rendezvous(f"file://{store}" if store else "env://", place.rank, place.world))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=PrefixStore(f"attempt {attempt}", shared),
            rank=place.rank,
            world_size=place.world,
            timeout=timedelta(minutes=30),
        )


def _tell_lightning(rank: int) -> None:
    # Lightning reads the rank when it is imported, which in a forked process was before there was one.
    from lightning.fabric.utilities.rank_zero import rank_zero_only as fabric  # noqa: PLC0415
    from lightning_utilities.core.rank_zero import rank_zero_only as utilities  # noqa: PLC0415

    for function in (fabric, utilities):
        function.rank = rank  # type: ignore[attr-defined]


def agree(place: Place, decide: Callable[[], str]) -> str:
    """What rank 0 decides, on every rank; what it raises as a LabError or OSError is a LabError on every rank."""
    if place.world == 1:
        return decide()
    from torch import distributed  # noqa: PLC0415

    join(place)
    decision: list[str | None] = [None, None]
    if place.rank == 0:
        try:
            decision[0] = decide()
        except (LabError, OSError) as error:
            decision[1] = str(error)
    distributed.broadcast_object_list(decision, src=0)
    if decision[1] is not None:
        raise LabError(decision[1])
    return str(decision[0])


def leave_together(seconds: float = 10.0) -> None:
    """Wait until all ranks come here, but not long: torchrun and SLURM end the others when the first has failed.

    Rank 0 may have to save what is still in memory.
    """
    if here().world == 1:
        return
    import torch  # noqa: PLC0415
    from torch import distributed  # noqa: PLC0415

    with contextlib.suppress(RuntimeError):  # one of them has gone, or will not come
        meeting = distributed.all_reduce(torch.zeros(1), async_op=True)
        if meeting is not None:
            meeting.wait(timedelta(seconds=seconds))


def wanted(trainer: Mapping[str, Any], gpus: Callable[[], int]) -> int:
    """How many processes of this machine a trainer's accelerator and devices ask for, as Lightning reads them.

    Args:
        trainer: the configuration.
        gpus: counts the GPUs; only asked where the answer matters.

    Raises:
        LabError: devices is none of the forms that Lightning knows.
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
        on_gpu = accelerator in {"gpu", "cuda"} or (accelerator == "auto" and gpus() > 0)
        return max(1, gpus()) if on_gpu else 1
    if isinstance(devices, str):
        devices = [part for part in devices.split(",") if part.strip().isdigit()]
    count = devices if isinstance(devices, int) else len(devices) if isinstance(devices, Sequence) else 0
    if count < 1:
        raise LabError(f"trainer.devices must be a number above 0, a list of GPUs, or auto: got {trainer['devices']!r}")
    return count
