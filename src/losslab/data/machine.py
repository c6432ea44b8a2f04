"""Memory and CPU cores that are available to this process."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def available_memory() -> int:
    """Return the bytes that this process may allocate, limited by the machine and by control groups (as of SLURM).

    The memory is divided evenly among the ranks of a run and the parallel jobs of a sweep.
    """
    return max(0, min([_machine(), *_control_group_memory()])) // _processes()


def cores() -> int:
    """Return the number of CPU cores that this process may use, divided evenly among ranks and parallel jobs."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, allowed // _processes())


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next batch instead of returning it to the system. Only for Linux."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415

    mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(option, 1 << 30)


def format_bytes(size: int) -> str:
    """Format a size such as "1.5 GiB" or "20.0 MiB"."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"


def _processes() -> int:
    """Return the number of ranks of this run on this machine × the number of parallel jobs of the sweep."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) * int(os.environ.get("LOSSLAB_JOBS", "1"))


def _machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        # macOS reports no available memory without a third-party library: assume half of the physical memory.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def _control_group_memory(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Return the bytes that each control group (version 1 or 2) of this process has left; [] if none has a limit."""
    remaining: list[int] = []
    try:
        entries = [line.split(":", 2) for line in own.read_text(encoding="ascii").splitlines()]
    except OSError:
        return remaining
    for _, controllers, path in entries:
        if controllers in {"", "memory"}:  # version 2 names no controller
            top, names = (root / "memory", _V1) if controllers else (root, _V2)
            group = top / path.lstrip("/")
            for each in (group, *group.parents):
                with suppress(OSError, ValueError):  # the group does not exist here, or its limit is "max"
                    remaining += [_remaining(each, *names)] if each.is_relative_to(top) else []
    return remaining


def _remaining(group: Path, limit: str, usage: str, inactive: str) -> int:
    maximum, used = (int((group / name).read_text(encoding="ascii")) for name in (limit, usage))
    stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    return maximum - used + int(stat.get(inactive, 0))  # the kernel frees inactive file pages on demand
