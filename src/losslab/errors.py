"""What is raised when the input, not the code, is wrong."""


class LabError(ValueError):
    """Bad input. Its message is one line that says what was seen and names the fix.

    The commands print that line alone and exit with code 1; `traceback=true` shows where it was raised.
    """


class NonFiniteError(LabError):
    """A loss, gradient or weight became NaN or infinite. The message names step, loss and layer."""

    everywhere = False
    """Whether all processes of the run raise it."""
