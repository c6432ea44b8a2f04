"""What the commands do to the process they run in."""

import atexit
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn


def find_the_users_code() -> None:
    """Have loss._target_=mine.Loss find mine.py in the working directory; python itself looks beside the script."""
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        sys.stderr.write("the folder you are in was deleted: cd to another\n")
        leave(1)
    if here not in sys.path:
        sys.path.append(here)


@contextmanager
def imports_without_gc() -> Iterator[None]:
    """Import with the garbage collector off: torch and lightning make millions of objects that all stay."""
    if "losslab.experiment" in sys.modules:
        yield  # a later job of a sweep: to freeze again would keep the garbage of the job before
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # where the interpreter does end by itself, or its leak check complains


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next batch instead of returning it page by page (Linux only)."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415

    mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(option, 1 << 30)


def leave(code: int) -> NoReturn:
    """End the process now that all is saved: to tear down torch's modules takes the interpreter over a second."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
