"""What this machine lends to data: memory and cores."""

import os
from pathlib import Path


def available_memory() -> int:
    """Bytes that this process may still take, by the machine and by its control group (a container, a SLURM job).

    Processes that share the machine, as torchrun and sweeps start them, share what there is.
    """
    room = [_machine(), *_groups()]
    return max(0, min(room)) // _processes()


def cores() -> int:
    """The processor cores that this process may use, shared with those that were started beside it."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, allowed // _processes())


def format_bytes(size: int) -> str:
    """A number of bytes as one says it."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MB"


def _processes() -> int:
    """The processes of this run here, times the jobs that a sweep runs at a time."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) * int(os.environ.get("LOSSLAB_JOBS", "1"))


def _machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        # macOS does not say what is free without other libraries; half of what is built in is a guess.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What each control group around this process leaves it, of either version; nothing where there are none."""
    try:
        places = [line.split(":", 2) for line in own.read_text(encoding="ascii").splitlines()]
    except OSError:
        return []
    room: list[int | None] = []
    for _, controllers, path in places:
        if controllers in {"", "memory"}:  # version 2 names none
            top, names = (root / "memory", _V1) if controllers else (root, _V2)
            place = top / path.lstrip("/")
            room += [_left(folder, *names) for folder in (place, *place.parents) if folder.is_relative_to(top)]
    return [left for left in room if left is not None]


_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def _left(group: Path, limit: str, usage: str, inactive: str) -> int | None:
    try:
        most = int((group / limit).read_text(encoding="ascii"))
        used = int((group / usage).read_text(encoding="ascii"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):  # no such group here, or its limit is the word max
        return None
    # Files that were read and not looked at since make room when asked.
    return most - used + int(stat.get(inactive, 0))
