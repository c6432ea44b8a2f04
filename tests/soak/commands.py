"""Run the command in a process, and inject kills and signals."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
NOT_BEGUN = ("delete it and start the run again", "there is no such folder")


def start(*arguments: str, cwd: Path, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """`python train.py ARGUMENTS` in a process group of its own, with one thread."""
    cwd.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=environment | {"OMP_NUM_THREADS": "1"} | dict(variables or {}),
    )  # fmt: skip


def train(*arguments: str, cwd: Path) -> float:
    """Run the command undisturbed → the time that it took, in seconds."""
    began = time.monotonic()
    process = start(*arguments, cwd=cwd)
    out, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(out)
    return time.monotonic() - began


def ranks(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of the ranks that a command has started. Each leads its own process group."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = stat.read_text().partition(" (")
            parents[int(pid)] = int(rest.rpartition(") ")[2].split()[1])
    ids = []
    for pid in parents:
        above = pid
        while above in parents and above != process.pid:
            above = parents[above]
        with contextlib.suppress(ProcessLookupError):
            if above == process.pid != pid and os.getsid(pid) == pid:
                ids.append(pid)
    return sorted(ids)


class Attempt(NamedTuple):
    """One of the processes that trained a run."""

    fault: str
    """The fault that ended it; "" for the last one, which was not disturbed."""
    code: int
    seconds: float
    """From the fault to the end of the process."""
    out: str


class Fault(NamedTuple):
    """A signal to some of the processes of a run."""

    number: signal.Signals
    to: str
    """"group", "parent", "rank" (one of them) or "ranks" (all)."""

    def __str__(self) -> str:
        return f"{self.number.name} to the {self.to}"

    def inject(self, process: subprocess.Popen[str], rng: random.Random) -> None:
        """Send the signal; if there are no ranks (yet), to the command itself."""
        pids = ranks(process) if self.to.startswith("rank") else []
        chosen = [rng.choice(pids)] if pids and self.to == "rank" else pids
        with contextlib.suppress(ProcessLookupError):
            if self.to == "group":
                os.killpg(process.pid, self.number)
            for pid in chosen or [process.pid]:
                os.kill(pid, self.number)


KILL = Fault(signal.SIGKILL, "group")


def wait_for_random_moment(process: subprocess.Popen[str], history: Path, rng: random.Random, seconds: float) -> bool:
    """Wait for a random moment, in half of the cases during training → whether the process still runs.

    Args:
        process: that trains.
        history: the table that it creates when training begins.
        rng: random numbers.
        seconds: duration of an undisturbed process.
    """
    limit = time.monotonic() + rng.uniform(0.1, seconds)
    if rng.random() < 0.5:
        before = _modified(history)
        while process.poll() is None and _modified(history) == before:
            time.sleep(0.01)
        limit = time.monotonic() + rng.uniform(0, seconds / 5)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0, limit - time.monotonic()))
    return process.poll() is None


def _modified(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def attempts(
    command: Sequence[str], name: str, cwd: Path, faults: list[Fault], rng: random.Random, seconds: float
) -> Iterator[Attempt]:
    """Train in cwd/NAME, with each fault at a random moment within `seconds`, until the run is done.

    Injected faults are removed from the list: the run may end before the others. A run that was killed before it had
    written anything is started again, as the command then advises.
    """
    again = [*command, f"run_dir={name}"]
    while True:
        process = start(*again, cwd=cwd)
        fault = None
        if faults and wait_for_random_moment(process, cwd / name / "history.csv", rng, seconds):
            fault = faults.pop(0)
            fault.inject(process, rng)
        injected = time.monotonic()
        out, _ = process.communicate()
        yield Attempt(str(fault or ""), process.returncode, time.monotonic() - injected, out)
        if process.returncode == 0 or (fault is None and not any(words in out for words in NOT_BEGUN)):
            return
        begun = (cwd / name).exists() and not any(words in out for words in NOT_BEGUN)
        if not begun:
            shutil.rmtree(cwd / name, ignore_errors=True)
        again = [f"resume={name}"] if begun else [*command, f"run_dir={name}"]
