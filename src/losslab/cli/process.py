"""Code that the verbs share: set-up of the process, errors in one line, exit codes, and common options."""

import argparse
import atexit
import errno
import gc
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from losslab.errors import LabError, part_error
from losslab.io.terminal import ConsoleHandler, escape_unprintable_output, print_traceback, printable
from losslab.runs import trust


def run_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments RUN_FOLDER, --ckpt, --trust and --traceback."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER", help="the folder of a finished run")
    add_common_options(parser)
    checkpoint = "the checkpoint (default: best, that of the best epoch)"
    parser.add_argument("--ckpt", default="best", metavar="best|last|PATH", help=checkpoint)
    return parser


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add --traceback, and --trust: packages that the runs may use in addition to the allow-list of `runs.trust`."""
    package = "a package outside losslab that the run may use: its code will be executed; may be repeated"
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=package)
    parser.add_argument("--traceback", action="store_true", help="show the traceback of every error")


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add --data: an option of the data module that replaces the option in the configuration of the run."""
    option = "change an option of the data, such as dir=/elsewhere (train.py: data.dir=/elsewhere); may be repeated"
    parser.add_argument("--data", action="append", default=[], metavar="KEY=VALUE", help=option)


def refuse_file(folder: Path | None) -> None:
    """Raise a LabError if the output folder that the user named is a file."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise LabError(f"{folder} is a file: name another folder with --output")


def run_hydra_verb(body: Callable[[list[str]], int | None], arguments: Sequence[str] | None, help_text: str) -> None:
    """Run a verb that takes Hydra overrides, or print `help_text`. If `arguments` is None, use the command line."""
    overrides = list(sys.argv[1:] if arguments is None else arguments)
    if {"--help", "-h"} & set(overrides):
        sys.stdout.write(help_text)
        return
    from losslab.cli.hydra_errors import quote_texts  # noqa: PLC0415 -- imports Hydra's parser, which few verbs need

    add_working_directory_to_path()
    options = argparse.Namespace(trust=(), traceback="traceback=true" in overrides)
    run_verb(lambda _: body(quote_texts(overrides)), options)


def run_verb(body: Callable[[argparse.Namespace], int | None], options: argparse.Namespace) -> NoReturn:
    """Set up the process, call the body of a verb, and exit with the code that the body returns; None means 0.

    `options` contains at least the values of --trust and --traceback.
    """
    with one_line_errors(show_tracebacks=options.traceback):
        start_command(options.trust)
        code = body(options)
    exit_now(code or 0)


def start_command(trusted: Sequence[str] = (), *, rank: int = 0) -> None:
    """Set up the logging and the import path of a command. With a `rank` above 0, only errors are logged.

    The working directory is added to the import path only if the user trusts a package, because it may contain code
    that somebody else wrote.

    Raises:
        LabError: a name in `trusted` is not the name of a package.
    """
    if trust.parse_packages(trusted):
        add_working_directory_to_path()
    logging.basicConfig(format="%(message)s", handlers=[ConsoleHandler()])
    logging.getLogger().setLevel(logging.INFO if rank == 0 else logging.ERROR)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns if HOME is not writable


def add_working_directory_to_path() -> None:
    """Add the working directory to the import path, so that loss._target_=mine.Loss imports mine.py from there."""
    try:
        folder = str(Path.cwd())
    except FileNotFoundError:
        sys.stderr.write("the working directory was deleted: change to another directory\n")
        exit_now(1)
    if folder not in sys.path:
        sys.path.append(folder)


@contextmanager
def fast_imports() -> Iterator[None]:
    """Speed up the imports of torch and lightning in a `with` block, which are most of the time of a short command.

    The garbage collector is disabled, because torch creates millions of permanent objects. Lightning imports
    torchmetrics, which imports scipy.signal only to add a name to it: here it gets an empty module instead.
    """
    if "losslab.training.experiment" in sys.modules:
        yield  # torch is imported already; gc.freeze would keep the garbage of an earlier run
        return
    placeholder = ModuleType("scipy.signal")
    placeholder.hamming = None  # type: ignore[attr-defined]  # the name that torchmetrics would add
    sys.modules.setdefault("scipy.signal", placeholder)
    gc.disable()
    try:
        yield
    finally:
        if sys.modules["scipy.signal"] is placeholder:
            del sys.modules["scipy.signal"]
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # otherwise the leak check of the interpreter fails at exit


def exit_now(code: int) -> NoReturn:
    """Flush the output and end the process at once. A normal exit takes over a second, to unload torch."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def one_line_errors(*, show_tracebacks: bool, close: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Print an error that the user can fix as one line, and exit with code 1. Raise other errors.

    With `show_tracebacks`, raise all errors. After Ctrl-C, print "interrupted" and exit with code 130. `close` is
    called before the process exits, but not before an error is raised.
    """
    escape_unprintable_output()
    before = logging.raiseExceptions
    logging.raiseExceptions = show_tracebacks  # whether to report that a full disk makes logging fail
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        close()
        exit_now(130)
    except Exception as error:
        line = message_for_user(error)
        if show_tracebacks or line is None:
            sys.excepthook = lambda _, raised, __: print_traceback(raised)
            raise
        close()
        sys.stderr.write(printable(line).replace("\n", r"\n") + "\n")
        exit_now(1)
    finally:
        logging.raiseExceptions = before


def message_for_user(error: Exception) -> str | None:  # noqa: PLR0911 -- a return for each kind of error
    """Return the message for an error that the user can fix; None for any other error."""
    from hydra.errors import CompactHydraException  # noqa: PLC0415 -- slow to import, and not needed to compare runs
    from omegaconf.errors import OmegaConfBaseException  # noqa: PLC0415

    cause: BaseException | None = error
    while isinstance(cause, OmegaConfBaseException):  # OmegaConf wraps the error of a resolver
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, LabError):
        return str(cause)
    if isinstance(error, CompactHydraException):  # tested before OSError, since some errors are both
        from losslab.cli.hydra_errors import explain  # noqa: PLC0415 -- see `run_hydra_verb`

        cause = error.__cause__
        return str(cause) if isinstance(cause, LabError) else explain(error)
    if isinstance(error, UnicodeEncodeError):  # in a path that the user typed
        return f"{ascii(error.object)[:80]} cannot be encoded in UTF-8: leave out {error.object[error.start]!a}"
    if isinstance(error, OSError):
        if error.filename is None and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return f"cannot write: {error.strerror}; free some space, or set run_dir to another disk"
        return f"cannot use {error.filename}: {error.strerror}" if error.filename is not None else None
    if str(error).startswith("Config group override must be a string"):  # mix=null
        return "a group cannot be null: leave it out with ~GROUP, such as ~mix"
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, TypeError) and frames and frames[-1].filename.endswith("hydra/_internal/defaults_list.py"):
        return "the value of a group must be the name of one of its files, such as loss=huber"
    # "Could not detect": submitit found no SLURM. "Only one of": Hydra rejects -m together with --cfg.
    known = str(error).startswith(("Could not detect", "Only one of")) or isinstance(error, OmegaConfBaseException)
    if known or type(error).__module__.startswith("submitit."):
        return str(error).splitlines()[0]
    part = part_error(error)
    return None if part is None else str(part)
