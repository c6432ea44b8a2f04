"""The code of a worker process: set up the process, call the task, report the result, exit.

A worker leads an OS process group. When its parent ends for any reason, the worker and its children are killed.
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
from contextvars import ContextVar
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from losslab.errors import LabError, PartError, message_of, part_error
from losslab.training.distributed.environment import RankInfo, init_process_group


@dataclass(frozen=True)
class WorkerOptions:
    """Settings of a worker process that differ from its parent's."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that are added to those of the parent."""
    output: Path | None = None
    """The file for stdout and stderr; None for the parent's stdout and stderr."""
    threads: int | None = None
    """The number of torch threads; None for torch's default."""


@dataclass(frozen=True)
class WorkerResult:
    """The result of a worker group: a value, or the reason for a failure."""

    value: Any = None
    reason: str | None = None
    """The reason for the failure, in one line; None for success."""
    traceback: str = ""
    """The traceback of a failure."""
    is_explained: bool = False
    """Whether the reason says what to do, so that the traceback is only shown if the user asks for it."""
    is_consequence: bool = False
    """Whether the failure was caused by the end of another rank."""
    exit_code: int = 1
    """The exit code after a failure, for a command that runs only this worker group."""


_send_progress: ContextVar[Callable[[dict[str, Any]], None] | None] = ContextVar("send_progress", default=None)
"""The function that sends progress to the parent process; None in a process that is not a worker."""


def is_worker() -> bool:
    """Return whether a `WorkerGroup` started this process. If so, the parent process handles errors."""
    return _send_progress.get() is not None


def report_progress(progress: dict[str, Any]) -> None:
    """Send progress to the parent process if this is rank 0 of a worker group; otherwise do nothing."""
    send = _send_progress.get()
    if send is not None:
        send(progress)


def worker_main(
    pipe: Connection,
    info: RankInfo,
    store: str | None,
    options: WorkerOptions,
    environment: dict[str, str],
    task: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """Run a task in this process, report to the parent through the pipe, and exit without unloading torch.

    `store` is the file through which several ranks find each other; `environment` replaces the environment variables.
    """
    lock = threading.Lock()

    def send(kind: str, content: Any) -> None:
        with lock, contextlib.suppress(OSError):
            pipe.send((kind, content))

    def send_progress(progress: dict[str, Any]) -> None:
        if info.rank == 0:
            send("progress", progress)

    _send_progress.set(send_progress)
    try:
        _set_up_process(options, environment)
        init_process_group(info, store)
        value = task(*arguments)
        send("done", value if info.rank == 0 else None)
        code = 0
    except BaseException as error:  # noqa: BLE001 -- SystemExit and KeyboardInterrupt are reported too
        send("failed", result_of_error(error))
        code = 1
    for flush in (logging.shutdown, sys.stdout.flush, sys.stderr.flush):
        with contextlib.suppress(Exception):
            flush()
    os._exit(code)


def result_of_error(error: BaseException) -> WorkerResult:
    """Return the result of a rank that was ended by an exception."""
    line, name = message_of(error), type(error).__name__
    trace = "".join(traceback.format_exception(error))
    part = error if isinstance(error, LabError) else part_error(error)
    if part is not None:
        cause = (error.__cause__ or error) if isinstance(error, PartError) else error
        is_consequence = isinstance(part, PartError) and _is_lost(cause)
        return WorkerResult(reason=str(part), traceback=trace, is_explained=True, is_consequence=is_consequence)
    if isinstance(error, SystemExit):
        return WorkerResult(reason=f"exited with code {error.code}")
    if isinstance(error, KeyboardInterrupt):
        return WorkerResult(reason="interrupted", is_consequence=True, exit_code=130)
    return WorkerResult(reason=f"{name}: {line}"[:300], traceback=trace, is_consequence=_is_lost(error))


def _is_lost(error: BaseException) -> bool:
    """Return whether the exception says that another rank is gone."""
    words = ("gloo", "NCCL", "nccl", "Connection closed")
    return type(error).__name__.startswith("Dist") or any(word in message_of(error) for word in words)


def _set_up_process(options: WorkerOptions, environment: dict[str, str]) -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.setsid()
    # Children of the worker, such as DataLoader workers, start by the platform's default, not from a second forkserver.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    threading.Thread(target=_end_with_parent, args=(multiprocessing.parent_process(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the forkserver blocks it
    os.environ.clear()
    os.environ.update(environment)
    with contextlib.suppress(OSError):  # Linux: when memory runs out, kill a worker rather than its parent
        Path("/proc/self/oom_score_adj").write_text("500")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(options.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)
    with contextlib.suppress(Exception):
        faulthandler.enable()
    gc.enable()
    if options.threads is not None:
        import torch  # noqa: PLC0415

        os.environ["OMP_NUM_THREADS"] = str(options.threads)
        torch.set_num_threads(options.threads)


def _end_with_parent(parent: BaseProcess | None) -> None:
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)
