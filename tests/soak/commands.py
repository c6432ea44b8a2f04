"""The command as a process of its own, and what can be done to it."""

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
    """Let one run end undisturbed → its seconds."""
    began = time.monotonic()
    process = start(*arguments, cwd=cwd)
    out, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(out)
    return time.monotonic() - began


def ranks(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a command of several has started to train: they lead groups of their own."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = stat.read_text().partition(" (")
            parents[int(pid)] = int(rest.rpartition(") ")[2].split()[1])
    found = []
    for pid in parents:
        above = pid
        while above in parents and above != process.pid:
            above = parents[above]
        with contextlib.suppress(ProcessLookupError):
            if above == process.pid != pid and os.getsid(pid) == pid:
                found.append(pid)
    return sorted(found)


class Life(NamedTuple):
    """One of the processes in which a run was trained."""

    blow: str
    """What ended it; "" for the last, which came to its end."""
    code: int
    seconds: float
    """From the blow to the end of the process."""
    out: str


class Blow(NamedTuple):
    """Something that is done to a run."""

    number: signal.Signals
    to: str
    """"group", "parent", "rank" (one of them) or "ranks" (all)."""

    def __str__(self) -> str:
        return f"{self.number.name} to the {self.to}"

    def strike(self, process: subprocess.Popen[str], moments: random.Random) -> None:
        """Do it; where there are no ranks (yet), to the command itself."""
        found = ranks(process) if self.to.startswith("rank") else []
        chosen = [moments.choice(found)] if found and self.to == "rank" else found
        with contextlib.suppress(ProcessLookupError):
            if self.to == "group":
                os.killpg(process.pid, self.number)
            for pid in chosen or [process.pid]:
                os.kill(pid, self.number)


KILL = Blow(signal.SIGKILL, "group")


def reach(process: subprocess.Popen[str], history: Path, moments: random.Random, seconds: float) -> bool:
    """Wait for a random moment: half of the time of its whole life, else of its training → whether it still runs.

    Args:
        process: which trains.
        history: the table that it opens when it begins to train.
        moments: where chance comes from.
        seconds: that an undisturbed life takes.
    """
    limit = time.monotonic() + moments.uniform(0.1, seconds)
    if moments.random() < 0.5:
        before = _changed(history)
        while process.poll() is None and _changed(history) == before:
            time.sleep(0.01)
        limit = time.monotonic() + moments.uniform(0, seconds / 5)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0, limit - time.monotonic()))
    return process.poll() is None


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def lives(
    command: Sequence[str], name: str, cwd: Path, blows: list[Blow], moments: random.Random, seconds: float
) -> Iterator[Life]:
    """Train in cwd/NAME, struck down by each of the blows at a random moment within `seconds`, until it is done.

    Those that were struck are taken from the list: the end may come before the others.

    A run that was killed before it had written anything begins anew, as the command then says.
    """
    again = [*command, f"run_dir={name}"]
    while True:
        process = start(*again, cwd=cwd)
        blow = None
        if blows and reach(process, cwd / name / "history.csv", moments, seconds):
            blow = blows.pop(0)
            blow.strike(process, moments)
        struck = time.monotonic()
        out, _ = process.communicate()
        yield Life(str(blow or ""), process.returncode, time.monotonic() - struck, out)
        if process.returncode == 0 or (blow is None and not any(words in out for words in NOT_BEGUN)):
            return
        begun = (cwd / name).exists() and not any(words in out for words in NOT_BEGUN)
        if not begun:
            shutil.rmtree(cwd / name, ignore_errors=True)
        again = [f"resume={name}"] if begun else [*command, f"run_dir={name}"]
