"""What the doctor says."""

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
