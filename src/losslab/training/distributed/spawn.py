"""Processes that train, and what becomes of them: a crash, a leak or a full memory is one child's.

This module does no tensor work; child.py does.

Questions that need torch, from a process that does without: they are asked of a child.
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
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from losslab.data.machine import cores
from losslab.errors import LabError
from losslab.training.distributed import forkserver, signals
from losslab.training.distributed.environment import Place
from losslab.training.distributed.worker import Outcome, Surroundings, work

GRACE = 5.0
"""Seconds that the victims of a first failure have to say so."""
TO_SAVE = 20.0
"""Seconds that a process has to save its run and end, once it was asked to."""
_ASKED = {128 + number for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, *signals.ENDING)}
"""The exit codes of what a signal has ended."""


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
        self._deadline, self._failing = math.inf, False
        self._folder = tempfile.TemporaryDirectory(prefix="losslab-") if len(arguments) > 1 else None
        store = str(Path(self._folder.name) / "store") if self._folder else None
        self._ranks: dict[BaseProcess, Connection | None] = {}
        for rank, given in enumerate(arguments):
            place = Place(rank, len(arguments), rank, len(arguments))
            mine = dataclasses.replace(surroundings, store=store)
            ours, theirs = multiprocessing.Pipe(duplex=False)
            context = forkserver.context()
            process = context.Process(target=work, args=(theirs, place, mine, dict(os.environ), task, given))
            try:
                process.start()
            except EOFError as error:
                raise LabError("the server that processes are forked from has ended: memory may be short") from error
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
                    code = process.exitcode or 0
                    asked = 128 - code if code < 0 else code
                    self._failures.append(Outcome(reason=reason_of(code), code=asked if asked in _ASKED else 1))
                _signal_group(process, signal.SIGKILL)  # what it started goes with it
                process.close()
                del self._ranks[process]
        if self._failures and not self._failing:
            # The first to be noticed may be a victim of the first to fail: wait for the others' word.
            self._failing = True
            self._end_within(GRACE)
        if time.monotonic() > self._deadline:
            self._end_all()
        if not self._ranks and self.outcome is None:
            self.outcome = min(self._failures, key=lambda o: o.secondary, default=Outcome(self._value))
            if self._folder is not None:
                self._folder.cleanup()

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Ask all ranks to save and end: them alone, as they may need what they have started for another step."""
        for process in self._ranks:
            if process.pid is not None and process.exitcode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        self._end_within(TO_SAVE)

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

    def _end_within(self, seconds: float) -> None:
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def _end_all(self) -> None:
        for process in self._ranks:
            _signal(process, signal.SIGKILL)
            process.join(GRACE)


def watch(runs: Sequence[Run], seconds: float) -> None:
    """Wait until something happens in one of the runs, but no longer than this, and advance them all."""
    wait([item for run in runs for item in run.waitables()], timeout=seconds)
    for run in runs:
        run.advance()


def follow(run: Run) -> Outcome:
    """Wait for how a run ends; if this is interrupted, its processes tidy up and end first, the second time at once."""
    with termination_as_exit():
        try:
            while run.outcome is None:
                watch([run], 1)
        except BaseException as error:
            run.interrupt(int(error.code or 0) - 128 if isinstance(error, SystemExit) else signal.SIGINT)
            try:
                while run.outcome is None:
                    watch([run], 1)
            except BaseException:
                run.kill()
                raise
            raise
    return run.outcome


@contextmanager
def termination_as_exit() -> Iterator[None]:
    """SIGTERM and the like are exceptions as Ctrl-C is meanwhile, so that the processes are ended as after that."""
    numbers = signals.heeded(*signals.ENDING)
    before = {number: signal.signal(number, lambda number, _: sys.exit(128 + number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def reason_of(code: int) -> str:
    """Why a process ended that did not say so itself."""
    if code in _ASKED:
        return "interrupted"
    if code >= 0:
        return f"exited with code {code} before it was done"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = " (which is what the kernel sends when memory runs out)" if -code == signal.SIGKILL else ""
    return f"killed by {name}{hint}"


def share(count: int) -> int | None:
    """The threads of each of `count` processes that compute side by side; None where nothing needs to be shared."""
    return None if count == 1 or "OMP_NUM_THREADS" in os.environ else max(1, cores() // count)


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


def ask(task: Callable[..., Any], *arguments: Any) -> Any:
    """What a task returns, which needs torch.

    Raises:
        LabError: the task failed.
    """
    run = Run(task, [arguments], Surroundings())
    while run.outcome is None:
        watch([run], 1)
    if run.outcome.reason is not None:
        raise LabError(run.outcome.reason)
    return run.outcome.value


def gpus() -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES can pick one of the GPUs that are seen here."""
    count: int = ask(_count_gpus)
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible if len(visible) == count else [str(number) for number in range(count)]


def _count_gpus() -> int:
    import torch  # noqa: PLC0415

    return torch.cuda.device_count()
