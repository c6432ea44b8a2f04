"""A finding: a fault of a public loss, and a measurement that shows whether the installed version has it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Consequence of a fault for users of the loss; the first is the worst."""

    NOT_FINITE = "NaN or infinity"
    WRONG_GRADIENT = "wrong gradient"
    WRONG_VALUE = "wrong value"
    MISUSE = "misuse accepted"
    DIFFERS = "differs from the source"


@dataclass(frozen=True)
class Evidence:
    """Result of a measurement: the measured numbers as text, and whether the finding holds."""

    seen: str
    holds: bool


@dataclass(frozen=True)
class Finding:
    """A fault of a public loss.

    Args:
        function: dotted name of the loss.
        fault: description of the fault in one sentence.
        claim: what the documentation or the paper says.
        source: source of the claim.
        severity: consequence of the fault.
        losslab: what losslab does instead, or whether it has the same fault.
        documented: whether the documentation of the library mentions the fault.
        measure: function that runs the installed implementation.
    """

    function: str
    fault: str
    claim: str
    source: str
    severity: Severity
    losslab: str
    documented: bool
    measure: Callable[[], Evidence]

    @property
    def name(self) -> str:
        """Name of the finding in the tests."""
        return f"{self.function.partition('.')[0]}-{self.measure.__name__}"

    @property
    def kind(self) -> str:
        """Severity as text, with "documented" if the library documents the fault."""
        return f"{self.severity}, documented" if self.documented else str(self.severity)

    def check(self) -> Evidence:
        """Measure the installed version; its warnings are suppressed.

        If the measurement raises an exception, the finding no longer holds: a later version may refuse the input or
        lack the function.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return self.measure()
            except Exception as error:  # noqa: BLE001  # a later version may raise anything
                message = str(error).partition("\n")[0]
                return Evidence(f"the call now raises {type(error).__name__}: {message}", holds=False)


def finding(
    function: str, *, claim: str, source: str, severity: Severity, losslab: str, documented: bool = False
) -> Callable[[Callable[[], Evidence]], Finding]:
    """Decorator that turns a measuring function into a Finding; the function's docstring describes the fault."""

    def make(measure: Callable[[], Evidence]) -> Finding:
        fault = (measure.__doc__ or "").strip()
        return Finding(function, fault, claim, source, severity, losslab, documented, measure)

    return make


def status(evidence: Evidence) -> str:
    """Describe whether the finding holds."""
    return "holds" if evidence.holds else "fixed in the installed version"
