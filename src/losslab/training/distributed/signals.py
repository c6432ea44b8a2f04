"""Signals that end training after the current step, on all ranks after the same step.

`SignalHandler` records Ctrl-C, SIGTERM, SIGHUP and, in a SLURM job, SIGUSR1 and SIGUSR2. The checkpoint callback then
saves the run and ends it. After SIGUSR1 or SIGUSR2 the job is requeued.
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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, distributed

logger = logging.getLogger("losslab")

TERMINATION_SIGNALS = (signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
"""The signals that `kill` and a closed terminal send."""
SAVE = 1
"""The code of a request for a checkpoint. SAVE + signal number requests a checkpoint and then the end of the run."""
_REPEAT_SECONDS = 0.3
"""A second signal within this time counts as a copy of the first, forwarded by a parent process (torchrun, srun)."""


def slurm_signals() -> tuple[signal.Signals, ...]:
    """Return the signals after which a SLURM job is saved and requeued; an empty tuple outside of a SLURM job."""
    in_slurm_job = {"SLURM_JOB_ID", "SUBMITIT_EXECUTOR"} & os.environ.keys()
    # `#SBATCH --signal=USR1@90` sends SIGUSR1, submitit sends SIGUSR2.
    return (signal.SIGUSR1, signal.SIGUSR2) if in_slurm_job else ()


def requeue_slurm_job(number: int, handler: Callable[..., Any] | int | None) -> None:
    """Requeue the SLURM job of this process. Call this on rank 0 when the run has been saved.

    If the previous `handler` of signal `number` is a function, such as submitit's, it is called to requeue the job.
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
        reason = " ".join((getattr(error, "stderr", None) or str(error)).split())
        logger.error("cannot requeue SLURM job %s (%s)", job, reason)  # noqa: TRY400 -- one line
    else:
        logger.info("requeued SLURM job %s", job)


def signals_to_handle(*numbers: int) -> list[int]:
    """Return `numbers` and the signals of SLURM, except those that this process ignores (as with nohup)."""
    return [number for number in (*numbers, *slurm_signals()) if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def exit_on_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end the process at once without a traceback. Use this for code that has nothing to save."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class SignalHandler:
    """Records the first signal between `install` and `uninstall`. A second signal ends the process at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        """The signal that ends the run; None if there was none."""
        self.previous_handlers: dict[int, Any] = {}
        """The handlers that `install` replaced."""
        self.deferred = True
        """Whether the first signal is only recorded in `received`. If not, it also raises KeyboardInterrupt."""
        self._installed = False
        self._received_at = 0.0

    def install(self) -> None:
        """Handle the signals from now on, and forget earlier ones. Handles nothing outside the main thread."""
        self.received = None
        numbers = signals_to_handle(signal.SIGINT, *TERMINATION_SIGNALS)
        if threading.current_thread() is threading.main_thread() and not self._installed:
            self.previous_handlers = {number: signal.signal(number, self._handle) for number in numbers}
            self._installed = True

    def uninstall(self) -> None:
        """Restore the previous handlers."""
        if self._installed:
            for number, handler in self.previous_handlers.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            self._installed = False

    def request(self) -> int:
        """Return the request code for `SharedRequest`: SAVE + the signal that was received, or 0."""
        return 0 if self.received is None else SAVE + self.received

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            if time.monotonic() - self._received_at > _REPEAT_SECONDS:
                os._exit(128 + number)
            return
        self.received, self._received_at = number, time.monotonic()
        if not self.deferred:
            raise KeyboardInterrupt
        name = signal.Signals(number).name
        logger.info("%s: the run is saved and ends after this step; send it again to end at once", name)


class SharedRequest:
    """MAX all-reduce of the request codes of all ranks, so that they all get the same code after the same step.

    After each step a rank submits its code and receives the maximum of the codes submitted after the step before.
    Therefore no rank waits for the slowest. A single process receives its own code at once.
    """

    def __init__(self) -> None:
        self._pending: tuple[Tensor, distributed.Work] | None = None
        self._agreed = 0

    def submit(self, code: int) -> int:
        """Submit a code (0 for no request) and return the agreed code, which stays set until `clear` is called."""
        import torch  # noqa: PLC0415
        from torch import distributed  # noqa: PLC0415

        if not (distributed.is_available() and distributed.is_initialized()):
            self._agreed = max(self._agreed, code)
            return self._agreed
        self._wait()
        maximum = torch.tensor(code)  # on the CPU, so that it does not synchronise with a GPU
        work = distributed.all_reduce(maximum, distributed.ReduceOp.MAX, async_op=True)
        assert work is not None  # noqa: S101 -- None only for a rank outside the group
        self._pending = maximum, work
        return self._agreed

    def submit_and_wait(self, code: int) -> int:
        """Submit a code, wait for the codes of all ranks, and return the agreed code."""
        self.submit(code)
        self._wait()
        return self._agreed

    def clear(self) -> int:
        """Reset the agreed code to 0 and return its previous value."""
        agreed, self._agreed = self._agreed, 0
        return agreed

    def _wait(self) -> None:
        if self._pending is not None:
            maximum, work = self._pending
            work.wait()
            self._agreed, self._pending = max(self._agreed, int(maximum)), None
