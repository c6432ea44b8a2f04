"""Processes that train: children of a server that has torch and lightning imported, so that each starts at once.

A crash, a leak or a full memory is one child's. Every child leads a process group of its own and ends with its
parent, however that ends; what it starts ends with it.
"""

import contextlib
import faulthandler
import gc
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from losslab.errors import LabError
from losslab.ranks import Place, join

GRACE = 5.0
"""Seconds that a process has to end by itself, and that the victims of a first failure have to say so."""

tell: Callable[[dict[str, Any]], None] | None = None
"""In a child: sends what a run has to say of its progress to whoever watches it. None where nobody does."""


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


class Run:
    """The processes of one run, started together and ended together.

    Args:
        task: what each rank calls; importable, as are its arguments picklable. What rank 0 returns is the value.
        arguments: of each rank.
        surroundings: of all ranks.
    """

    def __init__(
        self, task: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], surroundings: Surroundings
    ) -> None:
        self.started = time.monotonic()
        self.outcome: Outcome | None = None
        self.news: dict[str, Any] = {}
        self._failures: list[Outcome] = []
        self._value: Any = None
        self._deadline: float | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="losslab-") if len(arguments) > 1 else None
        store = str(Path(self._folder.name) / "store") if self._folder else None
        self._ranks: dict[BaseProcess, Connection | None] = {}
        for rank, given in enumerate(arguments):
            place = Place(rank, len(arguments), rank, len(arguments))
            mine = Surroundings(surroundings.environment, surroundings.output, surroundings.threads, store)
            ours, theirs = multiprocessing.Pipe(duplex=False)
            process = _context().Process(target=_child, args=(theirs, place, mine, dict(os.environ), task, given))
            process.start()
            theirs.close()
            self._ranks[process] = ours

    def waitables(self) -> Iterator[Any]:
        """What becomes ready when there is something to advance for."""
        for process, pipe in self._ranks.items():
            yield process.sentinel
            if pipe is not None:
                yield pipe

    def advance(self) -> None:
        """Read what the ranks sent, notice which have ended, and end the others when one has failed."""
        for process, pipe in list(self._ranks.items()):
            gone = process.exitcode is not None  # looked at first: what it sent before is then all there is
            heard = self._listen(process, pipe)
            if gone:
                if not heard:
                    self._failures.append(Outcome(reason=reason_of(process.exitcode or 0)))
                _signal_group(process, signal.SIGKILL)  # what it started goes with it
                process.close()
                del self._ranks[process]
        if self._failures and self._deadline is None:
            # The first to be noticed may be a victim of the first to fail: wait for the others' word.
            self._deadline = time.monotonic() + GRACE
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._end_all()
        if not self._ranks and self.outcome is None:
            self.outcome = min(self._failures, key=lambda o: o.secondary, default=Outcome(self._value))
            if self._folder is not None:
                self._folder.cleanup()

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Ask all ranks to tidy up and end."""
        for process in self._ranks:
            _signal(process, number)
        self._deadline = time.monotonic() + GRACE

    def kill(self) -> None:
        """End all ranks now, and whatever they started."""
        self._end_all()
        self.advance()

    def _listen(self, process: BaseProcess, pipe: Connection | None) -> bool:
        """Whether this rank has said how it ended."""
        if pipe is None:
            return True
        with contextlib.suppress(EOFError, OSError):
            while pipe.poll():
                kind, content = pipe.recv()
                if kind == "news":
                    self.news |= content
                    continue
                if kind == "failed":
                    self._failures.append(content)
                elif content is not None:
                    self._value = content
                pipe.close()
                self._ranks[process] = None
                return True
        return False

    def _end_all(self) -> None:
        for process in self._ranks:
            _signal(process, signal.SIGKILL)
            process.join(GRACE)


def watch(runs: Sequence[Run], seconds: float) -> None:
    """Wait until something happens in one of the runs, but no longer than this, and advance them all."""
    wait([item for run in runs for item in run.waitables()], timeout=seconds)
    for run in runs:
        run.advance()


def reason_of(code: int) -> str:
    """Why a process ended that did not say so itself."""
    if code == 130:
        return "interrupted"
    if code >= 0:
        return f"exited with code {code} before it was done"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = " (which is what the kernel sends when memory runs out)" if -code == signal.SIGKILL else ""
    return f"killed by {name}{hint}"


def ask(task: Callable[..., Any], *arguments: Any) -> Any:
    """What a task returns, which needs torch, to a process that does without.

    Raises:
        LabError: the task failed.
    """
    run = Run(task, [arguments], Surroundings())
    while run.outcome is None:
        watch([run], 1)
    if run.outcome.reason is not None:
        raise LabError(run.outcome.reason)
    return run.outcome.value


def is_child() -> bool:
    """Whether this process was started by `Run`, which hears of its errors."""
    return multiprocessing.parent_process() is not None


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(count: int) -> int | None:
    """The threads of each of `count` processes that compute side by side; None where nothing needs to be shared."""
    return None if count == 1 or "OMP_NUM_THREADS" in os.environ else max(1, cores() // count)


def gpus() -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES can pick one of the GPUs that are seen here. Asked in a child."""
    count: int = ask(_count_gpus)
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible if len(visible) == count else [str(number) for number in range(count)]


def _count_gpus() -> int:
    import torch  # noqa: PLC0415

    return torch.cuda.device_count()


def _context() -> Any:
    """Where processes come from: a server that forks them, or where there is none, new interpreters."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["losslab.preload"])
    # It finds losslab where this process found it; and the terminal's Ctrl-C is for this process, not for the server.
    before = os.environ.get("PYTHONPATH")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return context


def _child(
    pipe: Connection,
    place: Place,
    surroundings: Surroundings,
    environment: dict[str, str],
    task: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """What a child process does: settle in, work, report, and leave without taking torch's modules apart."""
    _settle(surroundings, environment, place)
    lock = threading.Lock()

    def send(kind: str, content: Any) -> None:
        with lock, contextlib.suppress(OSError):
            pipe.send((kind, content))

    if place.rank == 0:
        global tell  # noqa: PLW0603 -- one process, one run, one who watches it
        tell = lambda news: send("news", news)  # noqa: E731
    try:
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
        return Outcome(reason="interrupted", secondary=True)
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in line:
        return Outcome(reason=f"ran out of memory ({line or name})"[:300], trace=trace)
    lost = name.startswith("Dist") or any(word in line for word in ("gloo", "NCCL", "nccl", "Connection closed"))
    return Outcome(reason=f"{name}: {line}"[:300], trace=trace, secondary=lost)


def _settle(surroundings: Surroundings, environment: dict[str, str], place: Place) -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.setsid()
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


def _signal(process: BaseProcess, number: int) -> None:
    """Signal a process that may still run, and its group."""
    if not _signal_group(process, number) and process.pid is not None and process.exitcode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)  # it has only just begun and leads no group yet


def _signal_group(process: BaseProcess, number: int) -> bool:
    if process.pid is None:
        return False
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
