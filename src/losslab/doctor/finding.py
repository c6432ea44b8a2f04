"""`Finding`, a problem that an examination finds, and the report that lists the findings."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from losslab.errors import message_of, user_line


class Severity(StrEnum):
    """How certain a problem is."""

    ERROR = "error"
    """Certain: training would fail, or would not learn the intended task."""
    WARNING = "warning"
    """Likely, but possibly intended."""


@dataclass(frozen=True)
class Finding:
    """A problem of a network, a loss, a batch or an optimizer."""

    severity: Severity
    name: str
    """A short name, such as "softmax-in-network", which stays the same in later versions."""
    problem: str
    """What was observed."""
    why: str
    """Why this is a problem."""
    fix: str
    """How to fix the problem."""

    @property
    def line(self) -> str:
        """The name, the problem and the fix, on one line."""
        return f"{self.name}: {self.problem}; {self.fix}"

    def __str__(self) -> str:
        return f"{self.severity} {self.name}: {self.problem}\n  why: {self.why}\n  fix: {self.fix}"


error = partial(Finding, Severity.ERROR)
warning = partial(Finding, Severity.WARNING)


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Return the errors, then the warnings, otherwise in the same order."""
    return sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR)


def report(findings: Sequence[Finding]) -> str:
    """Return the findings as text, three lines each, errors first; "nothing found" if there are none."""
    return "\n".join(str(finding) for finding in by_severity(findings)) or "nothing found"


_FIXES = (
    ("more than 1 value per channel", "BatchNorm needs two or more examples: use larger batches, or drop the last"),
    ("on the same device", "move everything to one device: network.to(device), loss.to(device), and each batch"),
    ("Input type", "convert the inputs to the dtype of the network, such as inputs.float(), and divide bytes by 255"),
    ("same dtype", "use one dtype: inputs.float() for a network in float32, and target.float() for real values"),
    ("Found dtype", "convert the target to the dtype of the outputs: target.to(outputs.dtype)"),
    ("can't be cast", "make the target real: target.float()"),
    ("expected scalar type", "use target.long() for class indices, target.float() for real values and 0/1 labels"),
    ("cannot be multiplied", "the size of an example must be in_features of the first layer: see the shapes above"),
    ("to have", "the inputs must be (N, channels, height, width), with the number of channels of the first layer"),
    ("weight tensor should be defined", "give one class weight for each output"),
    ("Assertion", "a class index is outside of 0..C-1: the first class is 0"),
    ("missing", "pass the missing arguments: examine(network, lambda outputs, target: loss(...), batch)"),
)
"""Pairs of a part of an exception message, and the fix for such an exception."""


def exception_finding(name: str, part: str, cause: Exception, **arguments: object) -> Finding:
    """Return the finding that the network or the loss, called with these arguments, raised an exception."""
    message = message_of(cause, 300)
    shapes = ", ".join(f"{key} {_dtype_and_shape(value)}" for key, value in arguments.items())
    fix = next((fix for words, fix in _FIXES if words in message), "see the exception message and the arguments above")
    if name == "network-raises" and "forward() missing" in message:
        fix = "let forward take the inputs alone: give its other arguments a default"
    line = user_line(cause)
    problem = f"{part} (given {shapes}) raised {type(cause).__name__}: {message}" + (f" ({line})" if line else "")
    return error(name, problem, "training would end with this exception", fix)


def _dtype_and_shape(value: object) -> str:
    """Return the dtype and shape of a tensor, as in "float32 (8, 3)", or the type of another object."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return type(value).__name__ if shape is None or dtype is None else f"{dtype_name(dtype)} {tuple(shape)}"


def dtype_name(dtype: object) -> str:
    """Return the name of a dtype, as in "float32"."""
    return str(dtype).removeprefix("torch.")
