"""The process of a command: import path, garbage collection, one-line errors, exit codes."""

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
    """Let loss._target_=mine.Loss import mine.py from the working directory, not only from the script's folder."""
    try:
        folder = str(Path.cwd())
    except FileNotFoundError:
        sys.stderr.write("the working directory was deleted: cd to another\n")
        leave(1)
    if folder not in sys.path:
        sys.path.append(folder)


@contextmanager
def imports_without_gc() -> Iterator[None]:
    """Disable the garbage collector during imports: torch and lightning create millions of permanent objects."""
    if "losslab.training.experiment" in sys.modules:
        yield  # already imported; freezing now would keep the garbage of an earlier run
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # otherwise the leak check of the interpreter fails at exit


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next batch instead of returning it page by page (Linux only)."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415

    mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(option, 1 << 30)


def leave(code: int) -> NoReturn:
    """End the process at once; the normal exit takes over a second to unload torch."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_and_leave(body: Callable[[], object], close: Callable[[], bool], *, show_all: bool) -> NoReturn:
    """Run a command that may run a sweep, and exit with its exit code.

    Args:
        body: the command.
        close: a function that reports on the sweep and returns whether all jobs are done; called in any case.
        show_all: whether to show every traceback.
    """
    try:
        with one_line_errors(show_all=show_all, close=close):
            body()
    except SystemExit as ended:
        close()
        leave(ended.code if isinstance(ended.code, int) else 1)
    leave(0 if close() else 1)


@contextmanager
def one_line_errors(*, show_all: bool, close: Callable[[], object] = bool) -> Iterator[None]:
    """Print an error that the user can fix in one line and exit with code 1; raise other errors.

    Args:
        show_all: whether to show every traceback.
        close: a function that is called before an error is printed, or after an interrupt is printed.
    """
    escape_unprintable_output()
    before, logging.raiseExceptions = logging.raiseExceptions, show_all  # the log may not fit on a full disk
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        close()
        leave(130)
    except Exception as error:
        line = message_of(error)
        if show_all or line is None:
            sys.excepthook = lambda _, raised, __: print_traceback(raised)
            raise
        close()
        sys.stderr.write(printable(line).replace("\n", r"\n") + "\n")
        leave(1)
    finally:
        logging.raiseExceptions = before


def message_of(error: Exception) -> str | None:  # noqa: PLR0911 -- a return for each kind of error
    """Return the message for an error that the user can fix, or None if the traceback is needed."""
    cause: BaseException | None = error
    while isinstance(cause, OmegaConfBaseException):  # raised by OmegaConf from the error of a resolver
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, LabError):
        return str(cause)
    if isinstance(error, CompactHydraException):  # before OSError: some are both
        cause = error.__cause__
        return str(cause) if isinstance(cause, LabError) else _hydra_message(str(error), cause)
    if isinstance(error, UnicodeEncodeError):  # a file name
        return f"{ascii(error.object)[:80]} cannot be encoded in UTF-8: leave out {error.object[error.start]!a}"
    if isinstance(error, OSError):
        if error.filename is None and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return f"cannot write: {error.strerror}; free some space, or set run_dir to another disk"
        return f"cannot use {error.filename}: {error.strerror}" if error.filename is not None else None
    if str(error).startswith("Config group override must be a string"):  # mix=null
        return "a group cannot be null: leave it out with ~GROUP, such as ~mix"
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, TypeError) and frames and frames[-1].filename.endswith("hydra/_internal/defaults_list.py"):
        return "the value of a group must be the name of one of its files, such as loss=huber: an override is not"
    # Errors of submitit about a job, or about a machine without SLURM; and of Hydra about -m with --cfg.
    foreign = type(error).__module__.startswith("submitit.") or str(error).startswith(
        ("Could not detect", "Only one of")
    )
    return str(error).splitlines()[0] if foreign or isinstance(error, OmegaConfBaseException) else None


_UNSET = re.compile(r"Could not override '(?P<group>\w+)\.(?P<key>[\w.]+)'")


def _hydra_message(message: str, cause: BaseException | None) -> str:
    """Return Hydra's message about a command line that it cannot compose, in one line."""
    unset = _UNSET.match(message)
    if unset is not None and unset["group"] in conf_groups.UNSET:
        return conf_groups.unset_group_message(unset["group"], unset["key"])
    if isinstance(cause, OmegaConfBaseException):
        message += f" ({str(cause).splitlines()[0]})"
    # Without the search path, and with the options on one line.
    words, options, names = message.partition("Config search path:")[0].partition("Available options in")
    group, *choices = names.split() or [""]
    return " ".join([*words.split(), *([options, group, ", ".join(choices)] if options else [])])
