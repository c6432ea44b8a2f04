"""What the commands do to the process they run in.

Errors in the user's words.
"""

import atexit
import errno
import gc
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hydra.errors import CompactHydraException
from omegaconf.errors import OmegaConfBaseException

from losslab.errors import LabError
from losslab.io import conf_groups
from losslab.io.terminal import escape_unprintable_output, print_traceback, printable


def add_working_directory_to_path() -> None:
    """Have loss._target_=mine.Loss import mine.py from the working directory; Python itself looks beside the script."""
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
    if "losslab.training.experiment" in sys.modules:
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


def run_and_leave(body: Callable[[], object], close: Callable[[], bool], *, show_all: bool) -> NoReturn:
    """Run a command that may run a sweep, and leave with its exit code.

    Args:
        body: of the command.
        close: reports on the sweep, however the command ends → whether all is well.
        show_all: show every traceback.
    """
    try:
        with one_line_errors(show_all=show_all, first=close):
            body()
    except SystemExit as ended:
        close()
        leave(ended.code if isinstance(ended.code, int) else 1)
    leave(0 if close() else 1)


_UNSET = re.compile(r"Could not override '(?P<group>\w+)\.(?P<key>[\w.]+)'")


@contextmanager
def one_line_errors(*, show_all: bool, first: Callable[[], object] = bool) -> Iterator[None]:
    """Print what the user can mend in one line and exit with code 1; let anything else show its traceback.

    Args:
        show_all: show every traceback.
        first: called before an error is printed, and after an interrupt is.
    """
    escape_unprintable_output()
    before, logging.raiseExceptions = logging.raiseExceptions, show_all  # a log that the disk has no room for
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        first()
        leave(130)
    except Exception as error:
        line = _line(error)
        if show_all or line is None:
            sys.excepthook = lambda _, raised, __: print_traceback(raised)
            raise
        first()
        sys.stderr.write(printable(line).replace("\n", r"\n") + "\n")
        leave(1)
    finally:
        logging.raiseExceptions = before


def _line(error: Exception) -> str | None:  # noqa: PLR0911 -- a line for each kind of error
    """What to say of an error instead of its traceback; None where only the traceback helps."""
    cause: BaseException | None = error
    while isinstance(cause, OmegaConfBaseException):  # in which OmegaConf wraps what a resolver raises
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, LabError):
        return str(cause)
    if isinstance(error, CompactHydraException):  # before OSError: some of them are OSErrors too
        cause = error.__cause__
        if isinstance(cause, LabError):
            return str(cause)
        return _composing(str(error), cause)
    if isinstance(error, UnicodeEncodeError):  # of a name that is looked for among the files
        return f"{ascii(error.object)[:80]} is no text in UTF-8: leave out {error.object[error.start]!a}"
    if isinstance(error, OSError):
        if error.filename is None and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return f"cannot write any more: {error.strerror}; make room, or set run_dir to a folder elsewhere"
        return f"cannot use {error.filename}: {error.strerror}" if error.filename is not None else None
    if str(error).startswith("Config group override must be a string"):  # Hydra's answer to mix=null
        return "a group cannot be null: leave it out with ~GROUP, such as ~mix"
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, TypeError) and frames and frames[-1].filename.endswith("hydra/_internal/defaults_list.py"):
        return "a group is chosen by the name of one of its files, such as loss=huber: an override names something else"
    # What submitit says of a job or of a machine without SLURM, and Hydra of -m with --cfg.
    foreign = type(error).__module__.startswith("submitit.") or str(error).startswith(
        ("Could not detect", "Only one of")
    )
    return str(error).splitlines()[0] if foreign or isinstance(error, OmegaConfBaseException) else None


def _composing(said: str, cause: BaseException | None) -> str:
    """What Hydra says of a command line that it cannot compose, as it prints it, but where we know better."""
    unset = _UNSET.match(said)
    if unset is not None and unset["group"] in conf_groups.UNSET:
        return conf_groups.nothing_chosen(unset["group"], unset["key"])
    if isinstance(cause, OmegaConfBaseException):  # of which the rest is OmegaConf's own view of it
        said += f" ({str(cause).splitlines()[0]})"
    # Where Hydra looked is its own affair; the options stand below each other.
    words, options, names = said.partition("Config search path:")[0].partition("Available options in")
    group, *choices = names.split() or [""]
    return " ".join([*words.split(), *([options, group, ", ".join(choices)] if options else [])])
