"""Ctrl-C, SIGTERM and the like during training: the step that is being made is finished and saved first."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from losslab import slurm

logger = logging.getLogger("losslab")

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
    return [number for number in (*numbers, *slurm.signals()) if signal.getsignal(number) is not signal.SIG_IGN]


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
