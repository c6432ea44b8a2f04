"""What a process does that trains: settle in, work, report, and leave.

It leads a process group of its own and ends with its parent, however that ends; what it starts ends with it.
"""

import contextlib
import faulthandler
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from losslab.errors import LabError
from losslab.training.distributed.environment import Place, join

tell: Callable[[dict[str, Any]], None] | None = None
"""In a child: sends what a run has to say of its progress to whoever watches it. None where nobody does."""
_ours = False


@dataclass(frozen=True)
class Surroundings:
    """What a child does not share with its parent."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables beside the parent's."""
    output: Path | None = None
    """The file that takes what it prints; None for the parent's own output."""
    threads: int | None = None
    """Threads of torch; None for its own choice."""
    store: str | None = None
    """The file over which the ranks meet."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a value, or for a reason."""

    value: Any = None
    reason: str | None = None
    """One line; None for success."""
    trace: str = ""
    """The traceback, where there is one and it helps."""
    secondary: bool = False
    """Whether it only says that another rank went away."""
    code: int = 1
    """The exit code of a command that does nothing but this; only of those that failed."""


def is_child() -> bool:
    """Whether this process was started by losslab's `Run`, which hears of its errors and counted the processes."""
    return _ours


def work(
    pipe: Connection,
    place: Place,
    surroundings: Surroundings,
    environment: dict[str, str],
    task: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """What a child process does: settle in, work, report, and leave without taking torch's modules apart."""
    global tell, _ours  # noqa: PLW0603 -- one process, one run, one who watches it
    _ours = True
    lock = threading.Lock()

    def send(kind: str, content: Any) -> None:
        with lock, contextlib.suppress(OSError):
            pipe.send((kind, content))

    if place.rank == 0:
        tell = lambda news: send("news", news)  # noqa: E731
    try:
        _settle(surroundings, environment, place)
        join(place, surroundings.store)
        value = task(*arguments)
        send("done", value if place.rank == 0 else None)
        code = 0
    except BaseException as error:  # noqa: BLE001 -- also SystemExit and KeyboardInterrupt: the parent is to hear of it
        send("failed", failure(error))
        code = 1
    for end in (logging.shutdown, sys.stdout.flush, sys.stderr.flush):
        with contextlib.suppress(Exception):
            end()
    os._exit(code)


def failure(error: BaseException) -> Outcome:
    """What to say of an error that ended a rank."""
    line = " ".join(str(error).split())
    name = type(error).__name__
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, LabError):
        return Outcome(reason=line)
    if isinstance(error, SystemExit):
        return Outcome(reason=f"exited with code {error.code}")
    if isinstance(error, KeyboardInterrupt):
        return Outcome(reason="interrupted", secondary=True, code=130)
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in line:
        return Outcome(reason=f"ran out of memory ({line or name})"[:300], trace=trace)
    lost = name.startswith("Dist") or any(word in line for word in ("gloo", "NCCL", "nccl", "Connection closed"))
    return Outcome(reason=f"{name}: {line}"[:300], trace=trace, secondary=lost)


def _settle(surroundings: Surroundings, environment: dict[str, str], place: Place) -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.setsid()
    # What it starts (workers that read data) starts as it would elsewhere, and not from a second server.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    threading.Thread(target=_follow, args=(multiprocessing.parent_process(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the server blocks it
    os.environ.clear()
    os.environ.update(environment | dict(surroundings.environment))
    if place.world > 1:
        os.environ.update(place.variables)
    with contextlib.suppress(OSError):  # Linux: when memory runs out, take a job and not what watches over them
        Path("/proc/self/oom_score_adj").write_text("500")
    if surroundings.output is not None:
        surroundings.output.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(surroundings.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)
    with contextlib.suppress(Exception):
        faulthandler.enable()
    gc.enable()
    if surroundings.threads is not None:
        import torch  # noqa: PLC0415

        os.environ["OMP_NUM_THREADS"] = str(surroundings.threads)
        torch.set_num_threads(surroundings.threads)


def _follow(parent: BaseProcess | None) -> None:
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)
