"""Starts worker processes and waits for their result. The children execute worker.py.

Each rank is a process, so that a crash, a leak or a full GPU affects only one run. The processes are forked from a
server that has imported torch and lightning. On platforms without forkserver they are spawned.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from losslab.data.machine import cores
from losslab.errors import LabError
from losslab.training.distributed import signals
from losslab.training.distributed.environment import RankInfo
from losslab.training.distributed.worker import WorkerOptions, WorkerResult, worker_main

_REPORT_SECONDS = 5.0
"""The time after the first failure in which the other ranks can report; then they are killed."""
_SAVE_SECONDS = 20.0
"""The time after a signal in which a process can save its run and end; then it is killed."""
_INTERRUPTED = {
    128 + number for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, *signals.TERMINATION_SIGNALS)
}
"""The exit codes of processes that were ended by a signal."""


class WorkerGroup:
    """The processes of a run, one for each rank, which start and end together. `poll` updates `result` and `progress`.

    Args:
        task: the function that each rank calls. It must be importable, and its arguments picklable. Its return value on
            rank 0 becomes `result.value`.
        arguments: the arguments of each rank; the length is the world size.
        options: the options of all ranks.
    """

    def __init__(self, task: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], options: WorkerOptions) -> None:
        self.started = time.monotonic()
        self.result: WorkerResult | None = None
        """None until all processes have ended."""
        self.progress: dict[str, Any] = {}
        """The newest progress reported by rank 0. A value that is a dict contains the items of all reports."""
        self._failures: list[WorkerResult] = []
        self._value: Any = None
        self._deadline, self._failing = math.inf, False
        world_size = len(arguments)
        self._folder = tempfile.TemporaryDirectory(prefix="losslab-") if world_size > 1 else None
        store = str(Path(self._folder.name) / "store") if self._folder else None
        environment = dict(os.environ) | dict(options.environment)
        self._ranks: dict[BaseProcess, Connection | None] = {}
        """The running processes, and their pipes; None for a pipe that is closed."""
        for rank, rank_arguments in enumerate(arguments):
            info = RankInfo(rank, world_size, rank, world_size)
            ours, theirs = multiprocessing.Pipe(duplex=False)
            args = (theirs, info, store, options, environment, task, rank_arguments)
            process = process_context().Process(target=worker_main, args=args)
            try:
                process.start()
            except EOFError as error:
                raise LabError("the forkserver has ended, possibly because memory ran out: run it again") from error
            theirs.close()
            self._ranks[process] = ours

    def waitables(self) -> list[Any]:
        """Return objects for `multiprocessing.connection.wait` that become ready when `poll` can read a message."""
        return [*(process.sentinel for process in self._ranks), *filter(None, self._ranks.values())]

    def poll(self) -> None:
        """Read the messages of the ranks, record which ranks have ended, and end all ranks when one has failed."""
        for process, pipe in list(self._ranks.items()):
            ended = process.exitcode is not None  # read before the pipe: no message can arrive after the exit
            reported = self._read(process, pipe)
            if ended:
                if not reported:
                    code = process.exitcode or 0
                    shell_code = 128 - code if code < 0 else code
                    exit_code = shell_code if shell_code in _INTERRUPTED else 1
                    self._failures.append(WorkerResult(reason=exit_reason(code), exit_code=exit_code))
                _kill_group(process)  # kill the processes that it started
                process.close()
                del self._ranks[process]
        if self._failures and not self._failing:
            # The first reported failure may be a consequence of another rank's: wait for the other reports.
            self._failing = True
            self._end_within(_REPORT_SECONDS)
        if time.monotonic() > self._deadline:
            self._kill_all()
        if not self._ranks and self.result is None:
            # False sorts before True: a failure that is not a consequence of another comes first.
            success = WorkerResult(self._value)
            self.result = min(self._failures, key=lambda failure: failure.is_consequence, default=success)
            if self._folder is not None:
                self._folder.cleanup()

    def wait(self) -> WorkerResult:
        """Wait for the result and return it."""
        while self.result is None:
            poll([self], 1)
        return self.result

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Send a signal to all ranks, which save and end; but not to their children, which the step may still need."""
        for process in self._ranks:
            if process.pid is not None and process.exitcode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        self._end_within(_SAVE_SECONDS)

    def kill(self) -> None:
        """Kill all ranks and the processes that they started."""
        self._kill_all()
        self.poll()

    def _read(self, process: BaseProcess, pipe: Connection | None) -> bool:
        """Read the messages of a rank, and return whether the rank has reported its end."""
        if pipe is None:
            return True
        with contextlib.suppress(EOFError, OSError):
            while pipe.poll():
                kind, content = pipe.recv()
                if kind == "progress":
                    for key, value in content.items():
                        self.progress[key] = self.progress.get(key, {}) | value if isinstance(value, dict) else value
                    continue
                if kind == "failed":
                    self._failures.append(content)
                elif content is not None:
                    self._value = content
                pipe.close()
                self._ranks[process] = None
                return True
        return False

    def _end_within(self, seconds: float) -> None:
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def _kill_all(self) -> None:
        for process in self._ranks:
            if not _kill_group(process):
                process.kill()  # it has just started and does not lead a process group yet
            process.join(_REPORT_SECONDS)


def process_context() -> Any:
    """Start a forkserver that imports torch, and return its multiprocessing context; or else return that of spawn."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["losslab.training.distributed.forkserver_preload"])
    # The server imports losslab from the same path. It ignores Ctrl-C, because this process handles it.
    previous = os.environ.get("PYTHONPATH")
    resource_tracker.ensure_running()  # otherwise the server would start the tracker, and thereby unblock Ctrl-C
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "LOSSLAB_PARENT": str(os.getpid())}
    try:
        forkserver.ensure_running()
    except OSError as error:
        if "too long" not in str(error):
            raise
        raise LabError(
            f"the path {tempfile.gettempdir()} is too long for a socket: set TMPDIR to a shorter one"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.environ.pop("LOSSLAB_PARENT")
        os.environ.pop("PYTHONPATH")
        if previous is not None:
            os.environ["PYTHONPATH"] = previous
    return context


def poll(groups: Sequence[WorkerGroup], seconds: float) -> None:
    """Wait at most `seconds` for a message or an exit in one of the groups, then poll all groups."""
    wait([item for group in groups for item in group.waitables()], timeout=seconds)
    for group in groups:
        group.poll()


def wait_for_group(group: WorkerGroup) -> WorkerResult:
    """Wait for the result. The first signal to this process lets the ranks save and end, the second kills them."""
    with termination_raises_exit():
        try:
            return group.wait()
        except BaseException as error:
            number = int(error.code or 0) - 128 if isinstance(error, SystemExit) else signal.SIGINT
            group.interrupt(number)
            try:
                group.wait()
            except BaseException:
                group.kill()
                raise
            raise


@contextmanager
def termination_raises_exit() -> Iterator[None]:
    """Let termination signals raise SystemExit, so that they can be caught like a KeyboardInterrupt."""
    numbers = signals.signals_to_handle(*signals.TERMINATION_SIGNALS)
    previous = {number: signal.signal(number, lambda number, _: sys.exit(128 + number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def exit_reason(code: int) -> str:
    """Return why a process ended without a report, given its exit code (the negative number of a signal)."""
    if code in _INTERRUPTED:
        return "interrupted"
    if code >= 0:
        return f"exited with code {code} before it had finished"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = " (the kernel sends it when memory runs out)" if -code == signal.SIGKILL else ""
    return f"killed by {name}{hint}"


def threads_per_process(count: int) -> int | None:
    """Return the number of threads for each of `count` processes that run together; None for torch's default."""
    return None if count == 1 or "OMP_NUM_THREADS" in os.environ else max(1, cores() // count)


def _kill_group(process: BaseProcess) -> bool:
    """Kill the worker's process group (of the operating system), and return whether the group existed."""
    if process.pid is None:
        return False
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def run_in_subprocess(task: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a worker, so that this process need not import torch. Raise a LabError if it failed."""
    result = WorkerGroup(task, [arguments], WorkerOptions()).wait()
    if result.reason is not None:
        raise LabError(result.reason)
    return result.value


def visible_gpus() -> list[str]:
    """Return the names of the visible GPUs as in CUDA_VISIBLE_DEVICES. A subprocess counts them."""
    count: int = run_in_subprocess(_count_gpus)
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return names if len(names) == count else [str(index) for index in range(count)]


def _count_gpus() -> int:
    import torch  # noqa: PLC0415

    return torch.cuda.device_count()
