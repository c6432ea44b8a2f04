"""Start worker processes and wait for their result. Does no tensor work itself: worker.py runs in the children.

Each rank is a process of its own, so that a crash, a leak or a full GPU affects one run only. The processes are forked
from a server that has torch and lightning imported, or are new interpreters where there is no forkserver.
"""

import contextlib
import dataclasses
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

VICTIM_SECONDS = 5.0
"""After the first failure of a rank, the time the others have to report theirs."""
SAVE_SECONDS = 20.0
"""After a signal, the time a process has to save its run and end."""
_INTERRUPTED = {
    128 + number for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, *signals.TERMINATION_SIGNALS)
}
"""Exit codes of processes that ended because of a signal."""


class WorkerGroup:
    """The processes of one run: one for each rank, started together and ended together.

    `poll` updates `result` and `progress`.

    Args:
        task: the function that each rank calls. It must be importable, and its arguments picklable. What rank 0
            returns is the value of the result.
        arguments: the arguments of each rank; their number is the world size.
        options: for all ranks.
    """

    def __init__(self, task: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], options: WorkerOptions) -> None:
        self.started = time.monotonic()
        self.result: WorkerResult | None = None
        """None until all processes have ended."""
        self.progress: dict[str, Any] = {}
        """The newest progress that rank 0 has reported."""
        self._failures: list[WorkerResult] = []
        self._value: Any = None
        self._deadline, self._failing = math.inf, False
        world_size = len(arguments)
        self._folder = tempfile.TemporaryDirectory(prefix="losslab-") if world_size > 1 else None
        options = dataclasses.replace(options, store=str(Path(self._folder.name) / "store") if self._folder else None)
        self._ranks: dict[BaseProcess, Connection | None] = {}
        for rank, rank_arguments in enumerate(arguments):
            info = RankInfo(rank, world_size, rank, world_size)
            ours, theirs = multiprocessing.Pipe(duplex=False)
            args = (theirs, info, options, dict(os.environ), task, rank_arguments)
            process = process_context().Process(target=worker_main, args=args)
            try:
                process.start()
            except EOFError as error:
                raise LabError("the server that processes are forked from has ended: memory may be short") from error
            theirs.close()
            self._ranks[process] = ours

    def waitables(self) -> Iterator[Any]:
        """Objects for `multiprocessing.connection.wait` that become ready when `poll` has something to read."""
        for process, pipe in self._ranks.items():
            yield process.sentinel
            if pipe is not None:
                yield pipe

    def poll(self) -> None:
        """Read what the ranks sent, notice which have ended, and end the others when one has failed."""
        for process, pipe in list(self._ranks.items()):
            ended = process.exitcode is not None  # checked before the pipe is read: then nothing more can arrive
            reported = self._read(process, pipe)
            if ended:
                if not reported:
                    code = process.exitcode or 0
                    shell_code = 128 - code if code < 0 else code
                    interrupted = shell_code in _INTERRUPTED
                    self._failures.append(
                        WorkerResult(reason=exit_reason(code), exit_code=shell_code if interrupted else 1)
                    )
                _signal_group(process, signal.SIGKILL)  # the processes that it started
                process.close()
                del self._ranks[process]
        if self._failures and not self._failing:
            # The first failure to arrive may be a consequence of the real one: wait for the other ranks' reports.
            self._failing = True
            self._end_within(VICTIM_SECONDS)
        if time.monotonic() > self._deadline:
            self._kill_all()
        if not self._ranks and self.result is None:
            self.result = min(self._failures, key=lambda failure: failure.secondary, default=WorkerResult(self._value))
            if self._folder is not None:
                self._folder.cleanup()

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Ask all ranks to save and end. Their own children get no signal: the next step may need them."""
        for process in self._ranks:
            if process.pid is not None and process.exitcode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        self._end_within(SAVE_SECONDS)

    def kill(self) -> None:
        """Kill all ranks now, and the processes that they started."""
        self._kill_all()
        self.poll()

    def _read(self, process: BaseProcess, pipe: Connection | None) -> bool:
        """Read messages from a rank → whether it has reported its end."""
        if pipe is None:
            return True
        with contextlib.suppress(EOFError, OSError):
            while pipe.poll():
                kind, content = pipe.recv()
                if kind == "progress":
                    self.progress |= content
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
            if not _signal_group(process, signal.SIGKILL):
                process.kill()  # it has just started and does not lead a group yet
            process.join(VICTIM_SECONDS)


def process_context() -> Any:
    """The multiprocessing context of the workers: a forkserver with torch imported, or spawn where there is none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["losslab.training.distributed.forkserver_preload"])
    # The server finds losslab where this process did. Ctrl-C in the terminal is for this process, not for the server.
    previous = os.environ.get("PYTHONPATH")
    resource_tracker.ensure_running()  # otherwise the server would start it, and unblock Ctrl-C in doing so
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "LOSSLAB_PARENT": str(os.getpid())}
    try:
        forkserver.ensure_running()
    except OSError as error:
        if "too long" not in str(error):
            raise
        raise LabError(
            f"{tempfile.gettempdir()} is too long a path for the socket of a process: set TMPDIR to a shorter one"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.environ.pop("LOSSLAB_PARENT")
        os.environ.pop("PYTHONPATH")
        if previous is not None:
            os.environ["PYTHONPATH"] = previous
    return context


def poll(groups: Sequence[WorkerGroup], seconds: float) -> None:
    """Wait at most this long until something happens in one of the groups, then poll all of them."""
    wait([item for group in groups for item in group.waitables()], timeout=seconds)
    for group in groups:
        group.poll()


def wait_for_group(group: WorkerGroup) -> WorkerResult:
    """Wait for the result. A first signal to this process lets the ranks save and end, a second one kills them."""
    with termination_raises_exit():
        try:
            while group.result is None:
                poll([group], 1)
        except BaseException as error:
            group.interrupt(int(error.code or 0) - 128 if isinstance(error, SystemExit) else signal.SIGINT)
            try:
                while group.result is None:
                    poll([group], 1)
            except BaseException:
                group.kill()
                raise
            raise
    return group.result


@contextmanager
def termination_raises_exit() -> Iterator[None]:
    """Let SIGTERM and the like raise SystemExit, so that workers are ended as after a KeyboardInterrupt."""
    numbers = signals.not_ignored(*signals.TERMINATION_SIGNALS)
    previous = {number: signal.signal(number, lambda number, _: sys.exit(128 + number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def exit_reason(code: int) -> str:
    """Why a process ended that did not report a reason, from its exit code (negative for a signal)."""
    if code in _INTERRUPTED:
        return "interrupted"
    if code >= 0:
        return f"exited with code {code} before it was done"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = " (which is what the kernel sends when memory runs out)" if -code == signal.SIGKILL else ""
    return f"killed by {name}{hint}"


def threads_per_process(count: int) -> int | None:
    """Threads for each of `count` processes that compute at once; None where torch's default is right."""
    return None if count == 1 or "OMP_NUM_THREADS" in os.environ else max(1, cores() // count)


def _signal_group(process: BaseProcess, number: int) -> bool:
    """Signal the process group of a worker → whether there was one."""
    if process.pid is None:
        return False
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def run_in_subprocess(task: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that needs torch in a worker → its value, so that this process need not import torch.

    Raises:
        LabError: the function failed.
    """
    group = WorkerGroup(task, [arguments], WorkerOptions())
    while group.result is None:
        poll([group], 1)
    if group.result.reason is not None:
        raise LabError(group.result.reason)
    return group.result.value


def visible_gpus() -> list[str]:
    """The visible GPUs, named as in CUDA_VISIBLE_DEVICES. They are counted in a subprocess."""
    count: int = run_in_subprocess(_count_gpus)
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return names if len(names) == count else [str(index) for index in range(count)]


def _count_gpus() -> int:
    import torch  # noqa: PLC0415

    return torch.cuda.device_count()
