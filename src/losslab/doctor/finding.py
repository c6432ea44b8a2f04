"""What the doctor says.

What a network or a loss itself refused, in its own words, with the fix where the words give it away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How sure it is that something is wrong."""

    ERROR = "error"
    """Surely: training would fail, or learn something else than was meant."""
    WARNING = "warning"
    """Likely."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: what was seen, why it matters, and what to do about it."""

    severity: Severity
    name: str
    """Short and stable, such as "softmax-in-network"."""
    seen: str
    why: str
    fix: str

    @property
    def line(self) -> str:
        """The finding in one line: what was seen, and the fix."""
        return f"{self.name}: {self.seen}; {self.fix}"

    def __str__(self) -> str:
        return f"{self.severity} {self.name}: {self.seen}\n  why: {self.why}\n  fix: {self.fix}"


def error(name: str, seen: str, why: str, fix: str) -> Finding:
    """What is surely wrong."""
    return Finding(Severity.ERROR, name, seen, why, fix)


def warning(name: str, seen: str, why: str, fix: str) -> Finding:
    """What is likely wrong."""
    return Finding(Severity.WARNING, name, seen, why, fix)


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """The most severe first, otherwise as they come."""
    return sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR)


def report(findings: Sequence[Finding]) -> str:
    """All findings as text of some lines each; "nothing found" where there are none."""
    return "\n".join(str(finding) for finding in by_severity(findings)) or "nothing found"


_FIXES = (
    ("more than 1 value per channel", "BatchNorm needs two examples or more: use larger batches, or drop the last one"),
    ("on the same device", "move all to one device: network.to(device), loss.to(device), and each batch"),
    ("Input type", "give the network its own dtype: inputs.float(), and divide bytes by 255"),
    ("same dtype", "give both one dtype: inputs.float() for a network in float32, and target.float() for real values"),
    ("Found dtype", "make the target what the outputs are: target.to(outputs.dtype)"),
    ("can't be cast", "make the target real: target.float()"),
    ("expected scalar type", "class indices are target.long(), real values and 0/1 labels target.float()"),
    ("cannot be multiplied", "the size of an example must be in_features of the first layer: see its shape above"),
    ("to have", "the inputs are to be (N, channels, height, width) with as many channels as the first layer takes"),
    ("weight tensor should be defined", "give one class weight for each output"),
    ("Assertion", "a class index lies outside 0..C-1: labels count from 0"),
    ("missing", "wrap it: examine(network, lambda outputs, target: loss(...), batch) hands over what it needs"),
)


def refusal(name: str, what: str, cause: Exception, *shapes: str) -> Finding:
    """The finding that a part raised an exception on this batch."""
    words = " ".join(str(cause).split())[:300] or type(cause).__name__
    fix = next((fix for sign, fix in _FIXES if sign in words), "mend what it says; the shapes are what it was given")
    given = f" (given {', '.join(shapes)})" if shapes else ""
    return error(name, f"{what}{given} raised {type(cause).__name__}: {words}", "training would end with this", fix)


def described(value: object) -> str:
    """A tensor's dtype and shape, as in "float32 (8, 3)"; of anything else its type."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return type(value).__name__
    return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"
