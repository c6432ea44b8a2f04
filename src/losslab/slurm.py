"""What SLURM asks of a job whose time is nearly up, or whose machine is wanted by another: to save and come back."""

import logging
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("losslab")


def signals() -> tuple[signal.Signals, ...]:
    """Those that say so: SIGUSR1 as in `#SBATCH --signal=USR1@90`, SIGUSR2 as submitit has it; none elsewhere."""
    inside = {"SLURM_JOB_ID", "SUBMITIT_EXECUTOR"} & os.environ.keys()
    return (signal.SIGUSR1, signal.SIGUSR2) if inside else ()


def requeue(number: int, handler: Callable[..., Any] | int | None) -> None:
    """Have the job started again, after its run was saved; called by the first process of a run.

    Args:
        number: of the signal that asked for it.
        handler: what had been set for that signal before, such as submitit's, which starts its own jobs again.
    """
    if callable(handler):
        handler(number, None)
        return
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)  # noqa: S603, S607
    except (OSError, subprocess.CalledProcessError) as error:
        why = " ".join((getattr(error, "stderr", None) or str(error)).split())
        logger.error("SLURM does not start job %s again (%s)", job, why)  # noqa: TRY400 -- one line
    else:
        logger.info("SLURM starts job %s again", job)
