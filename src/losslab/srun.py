"""What SLURM says of processes that srun starts together, and where they meet; and submitit, on one machine."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from losslab.errors import LabError

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
        message = (
            f"SLURM started {found.tasks} tasks on {found.nodes} nodes: start equally many on each (--ntasks-per-node)"
        )
        raise LabError(message)
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
