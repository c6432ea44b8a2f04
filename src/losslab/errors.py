"""Exceptions for errors that the user can fix, such as wrong input. Other exceptions are errors in the code."""


class LabError(ValueError):
    """An error that the user can fix. The message has one line and says what is wrong, where, and how to fix it.

    A command prints only this line and exits with code 1; with `traceback=true` it also prints the traceback.
    """


class NonFiniteError(LabError):
    """A loss, gradient or weight became NaN or infinite. The message names the step, the loss and the layer."""

    on_all_ranks = False
    """Whether each rank of the run raises this exception in the same step."""


def message_of(error: BaseException, limit: int | None = None) -> str:
    """Return the message of an exception as one line of at most `limit` characters; if it is empty, the type's name."""
    return " ".join(str(error).split())[:limit] or type(error).__name__
