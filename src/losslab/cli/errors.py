"""Errors in the user's words."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hydra.errors import CompactHydraException
from omegaconf.errors import OmegaConfBaseException

from losslab.cli.composing import OPEN_GROUPS, unchosen
from losslab.cli.process import leave
from losslab.errors import LabError

_UNSET = re.compile(r"Could not override '(?P<group>\w+)\.(?P<key>[\w.]+)'")


@contextmanager
def one_line_errors(*, show_all: bool, first: Callable[[], object] = bool) -> Iterator[None]:
    """Print what the user can mend in one line and exit with code 1; let anything else show its traceback.

    Args:
        show_all: show every traceback.
        first: called before anything is printed.
    """
    try:
        yield
    except Exception as error:
        line = _line(error)
        if show_all or line is None:
            raise
        first()
        sys.stderr.write(f"{line}\n")
        leave(1)


def _line(error: Exception) -> str | None:
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
    if isinstance(error, OSError):
        return f"cannot use {error.filename}: {error.strerror}" if error.filename is not None else None
    if str(error).startswith("Config group override must be a string"):  # Hydra's answer to mix=null
        return "a group cannot be null: leave it out with ~GROUP, such as ~mix"
    # What submitit says of a job or of a machine without SLURM, and Hydra of -m with --cfg.
    foreign = type(error).__module__.startswith("submitit.") or str(error).startswith(
        ("Could not detect", "Only one of")
    )
    return str(error).splitlines()[0] if foreign or isinstance(error, OmegaConfBaseException) else None


def _composing(said: str, cause: BaseException | None) -> str:
    """What Hydra says of a command line that it cannot compose, as it prints it, but where we know better."""
    unset = _UNSET.match(said)
    if unset is not None and unset["group"] in OPEN_GROUPS:
        return unchosen(unset["group"], unset["key"])
    return f"{said}\n{cause}" if isinstance(cause, OmegaConfBaseException) else said
