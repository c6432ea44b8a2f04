"""Code that the verbs share: set-up of the process, errors in one line, exit codes, and common options."""

import argparse
import atexit
import errno
import gc
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hydra.errors import CompactHydraException
from omegaconf.errors import OmegaConfBaseException

from losslab.errors import LabError
from losslab.io import conf_groups
from losslab.io.terminal import ConsoleHandler, escape_unprintable_output, print_traceback, printable
from losslab.runs import trust
from losslab.training.distributed import environment


def run_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser for a run folder, the packages to trust, and a checkpoint."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER", help="the folder of a finished run")
    add_trust_option(parser)
    checkpoint = "the checkpoint (default: best, of the best epoch)"
    parser.add_argument("--ckpt", default="best", metavar="best|last|PATH", help=checkpoint)
    return parser


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add --trust: packages outside losslab's allow-list that the configuration of a run may use."""
    package = "a package outside losslab that the run may use: its code will be executed; may be repeated"
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=package)


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add --data: options of the data that replace those of the run."""
    option = "change an option of the data, as data.KEY=VALUE of train.py does (dir=/elsewhere); may be repeated"
    parser.add_argument("--data", action="append", default=[], metavar="KEY=VALUE", help=option)


def refuse_file(folder: Path | None) -> None:
    """Raise LabError if an output folder is a file."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise LabError(f"{folder} is a file: name another folder with --output")


def run_hydra_verb(body: Callable[[list[str]], int | None], arguments: Sequence[str] | None, help_text: str) -> None:
    """Run a verb that takes overrides of the configuration, or print its help."""
    overrides = list(sys.argv[1:] if arguments is None else arguments)
    if {"--help", "-h"} & set(overrides):
        sys.stdout.write(help_text)
        return
    add_working_directory_to_path()
    run_verb(lambda: body(overrides), show_all="traceback=true" in overrides)


def run_verb(body: Callable[[], int | None], trusted: Sequence[str] = (), *, show_all: bool = False) -> NoReturn:
    """Set up the process, call the body of a verb, and exit with the code that it returns; None means 0.

    `show_all` is whether to show the traceback of every error.
    """
    with one_line_errors(show_all=show_all):
        start_command(trusted)
        code = body()
    exit_now(code or 0)


def start_command(trusted: Sequence[str] = ()) -> None:
    """Set up logging and the import path of a command. Ranks above 0 log only errors.

    Code in the working directory can be imported only if the user trusts a package, because the working directory may
    be a folder that somebody else wrote.

    Raises:
        LabError: a name in `trusted` is not the name of a package.
    """
    if trust.parse_packages(trusted):
        add_working_directory_to_path()
    level = logging.INFO if environment.current_rank().rank == 0 else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", handlers=[ConsoleHandler()])
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns if HOME is not writable


def add_working_directory_to_path() -> None:
    """Let loss._target_=mine.Loss import mine.py from the working directory, not only from the script's folder."""
    try:
        folder = str(Path.cwd())
    except FileNotFoundError:
        sys.stderr.write("the working directory was deleted: cd to another\n")
        exit_now(1)
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


def exit_now(code: int) -> NoReturn:
    """End the process at once. A normal exit needs over a second to unload torch."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def one_line_errors(*, show_all: bool, close: Callable[[], object] = bool) -> Iterator[None]:
    """Print an error that the user can fix in one line and exit with code 1. Raise other errors; with `show_all`, all.

    `close` is called before an error is printed, or after "interrupted" is printed.
    """
    escape_unprintable_output()
    before, logging.raiseExceptions = logging.raiseExceptions, show_all  # the log may not fit on a full disk
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        close()
        exit_now(130)
    except Exception as error:
        line = message_for_user(error)
        if show_all or line is None:
            sys.excepthook = lambda _, raised, __: print_traceback(raised)
            raise
        close()
        sys.stderr.write(printable(line).replace("\n", r"\n") + "\n")
        exit_now(1)
    finally:
        logging.raiseExceptions = before


def message_for_user(error: Exception) -> str | None:  # noqa: PLR0911 -- a return for each kind of error
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
    known = str(error).startswith(("Could not detect", "Only one of")) or isinstance(error, OmegaConfBaseException)
    return str(error).splitlines()[0] if known or type(error).__module__.startswith("submitit.") else None


def _hydra_message(message: str, cause: BaseException | None) -> str:
    """Return Hydra's message about a command line that it cannot compose, in one line."""
    unset = re.match(r"Could not override '(?P<group>\w+)\.(?P<key>[\w.]+)'", message)
    if unset is not None and unset["group"] in conf_groups.UNSET:
        return conf_groups.unset_group_message(unset["group"], unset["key"])
    if isinstance(cause, OmegaConfBaseException):
        message += f" ({str(cause).splitlines()[0]})"
    # Without the search path, and with the options on one line.
    words, options, names = message.partition("Config search path:")[0].partition("Available options in")
    group, *choices = names.split() or [""]
    return " ".join([*words.split(), *([options, group, ", ".join(choices)] if options else [])])
