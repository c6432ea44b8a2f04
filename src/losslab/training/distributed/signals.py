"""What SLURM asks of a job whose time is nearly up, or whose machine is wanted by another: to save and come back.

Ctrl-C, SIGTERM and the like during training: the step that is being made is finished and saved first.
"""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
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


_ECHO = 0.3
"""Seconds in which a second signal is the first, passed on by a parent (torchrun, srun) that was sent it as well."""

ENDING = (signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
"""Beside Ctrl-C: what kill sends, and who closes a terminal."""
received: int | None = None
"""The signal that is to end the run; None as long as there was none."""
replaced: dict[int, Any] = {}
"""What had been set for each signal before the newest watch."""


def heeded(*numbers: int) -> list[int]:
    """These and SLURM's, but for those that whoever started this process has it ignore, as nohup does."""
    return [number for number in (*numbers, *signals()) if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Have Ctrl-C end this process without a traceback: where nothing is begun, or it would not be heard for long."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Watch:
    """Takes them from `start` to `stop`: the first is remembered in `received`, a second ends the process."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._when = 0.0
        self.waits = True
        """Whether somebody looks soon; if not, a signal is an exception at once."""

    def start(self) -> None:
        """Take the signals; what an earlier run of this process received is past."""
        global received  # noqa: PLW0603 -- a process is ended by one signal
        received = None
        replaced.clear()
        numbers = heeded(signal.SIGINT, *ENDING)
        if threading.current_thread() is threading.main_thread() and not self._before:
            self._before = {number: signal.signal(number, self._receive) for number in numbers}

    def stop(self) -> None:
        """Give them back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        replaced.update(self._before)
        self._before = {}

    def _receive(self, number: int, _: FrameType | None) -> None:
        global received
        if received is not None:
            if time.monotonic() - self._when > _ECHO:
                os._exit(128 + number)
            return
        received, self._when = number, time.monotonic()
        if not self.waits:
            raise KeyboardInterrupt
        logger.info("%s: the run is saved after this step and ends; again to end at once", signal.Signals(number).name)
