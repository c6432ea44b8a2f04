"""Exceptions for errors that the user can fix, such as wrong input. Other exceptions are errors in the code."""

import os
import re
import sysconfig
import traceback
from pathlib import Path


class LabError(ValueError):
    """An error that the user can fix. The message has one line and says what is wrong, where, and how to fix it.

    A command prints only this line and exits with code 1; with `traceback=true` it also prints the traceback.
    """


class NonFiniteError(LabError):
    """A loss, gradient or weight became NaN or infinite. The message names the step, the loss and the layer."""

    on_all_ranks = False
    """Whether each rank of the run raises this exception in the same step."""

    @staticmethod
    def is_message(text: str) -> bool:
        """Return whether a text, which a sweep records for a failed job, says that something became NaN or infinite."""
        in_step = re.search(r"\bstep \d+\b.*\bNaN or infinite\b", text) is not None
        return in_step or NonFiniteError.is_before_training(text)

    @staticmethod
    def is_before_training(text: str) -> bool:
        """Return whether a text says that the loss was not finite before the first step.

        This is found by the examination of the first batch, or when a criterion from elsewhere is tried.
        """
        return "loss-not-finite" in text or "the loss is NaN or infinite" in text


class PartError(LabError):
    """An exception that a network, loss, callback or other part from outside losslab raised. The message says where."""


_PACKAGE = str(Path(__file__).resolve().parent) + os.sep
_LIBRARIES = re.compile(rf".*[\\/](site|dist)-packages[\\/]|{re.escape(sysconfig.get_path('stdlib'))}[\\/]|<")
_CALLERS_OF_PARTS = tuple(
    _PACKAGE + name.replace("/", os.sep)
    for name in (
        "models/learner.py", "training/experiment.py", "training/instantiate.py", "training/network.py",
        "training/preflight.py", "training/trainer.py", "losses/adapter/", "data/loader.py", "doctor/",
    )
)  # fmt: skip
"""The files of losslab that call parts: an exception of a library that they call is not an error in losslab."""


def part_error(error: BaseException) -> PartError | None:
    """Return the exception as a PartError, if code of the user or a library called by a part raised it; else None.

    The message names the deepest line of the user's code, or else of the library.
    """
    frames = _frames(error)
    own = [number for number, frame in enumerate(frames) if frame[0].startswith(_PACKAGE)]
    calls_part = bool(own) and own[-1] + 1 < len(frames) and frames[own[-1]][0].startswith(_CALLERS_OF_PARTS)
    line = (user_line(error) if own else None) or (_describe(frames[-1]) if calls_part else None)
    if isinstance(error, LabError) or not isinstance(error, Exception):
        return None
    message = message_of(error, 500)
    if _is_out_of_memory(error):
        return PartError(f"ran out of memory ({message}): lower data.batch_size, or use a smaller network")
    return None if line is None else PartError(f"{line}: {type(error).__name__}: {message}")


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether Python or torch could not allocate memory."""
    names = {"OutOfMemoryError", "MemoryError"}
    return type(error).__name__ in names or "can't allocate memory" in str(error)


def user_line(error: BaseException) -> str | None:
    """Return the deepest line of the user's code that losslab called, such as "my.py:3, in forward"; None without."""
    frames = _frames(error)
    first = next((number for number, frame in enumerate(frames) if frame[0].startswith(_PACKAGE)), 0)
    users = [frame for frame in frames[first:] if not frame[0].startswith(_PACKAGE) and not _LIBRARIES.match(frame[0])]
    return _describe(users[-1]) if users else None


def _frames(error: BaseException) -> list[tuple[str, int, str]]:
    """Return file, line and function of each frame of the traceback, the deepest last."""
    frames = traceback.walk_tb(error.__traceback__)
    return [(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in frames]


def _describe(frame: tuple[str, int, str]) -> str:
    file, line, function = frame
    return f"{_LIBRARIES.sub('', file.removeprefix(f'{Path.cwd()}{os.sep}'))}:{line}, in {function}"


def message_of(error: BaseException, limit: int | None = None) -> str:
    """Return the message of an exception as one line of at most `limit` characters; if it is empty, the type's name."""
    return " ".join(str(error).split())[:limit] or type(error).__name__
