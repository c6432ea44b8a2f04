"""Exceptions for wrong input, as opposed to wrong code."""


class LabError(ValueError):
    """The input is wrong. The message is one line that says what is wrong, where, and how to fix it.

    The commands print this line alone and exit with code 1; with `traceback=true` they print the traceback too.
    """


class NonFiniteError(LabError):
    """A loss, gradient or weight became NaN or infinite. The message names the step, the loss and the layer."""

    on_all_ranks = False
    """Whether all ranks of the run raise it."""


def message_of(error: BaseException, limit: int | None = None) -> str:
    """The message of an exception on one line, cut to `limit` characters; the name of its type if it is empty."""
    return " ".join(str(error).split())[:limit] or type(error).__name__
