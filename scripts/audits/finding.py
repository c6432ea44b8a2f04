"""What a finding is: a claim about a public loss, and a measurement that shows on the installed version if it holds."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """What the finding costs whoever uses the loss, the worst first."""

    NOT_FINITE = "NaN or infinity"
    WRONG_GRADIENT = "wrong gradient"
    WRONG_VALUE = "wrong value"
    MISUSE = "misuse accepted"
    DIFFERS = "differs from the source"


@dataclass(frozen=True)
class Evidence:
    """What one measurement saw: a sentence with its numbers, and whether the finding holds."""

    seen: str
    holds: bool


@dataclass(frozen=True)
class Finding:
    """A fault of a public loss.

    Args:
        function: the loss, by its dotted name.
        fault: what is wrong, in one sentence.
        claim: what the documentation or the paper says.
        source: where it says so.
        severity: what it costs.
        losslab: how losslab avoids it, or that it does not.
        documented: the library's documentation says that it is so.
        measure: runs the installed implementation.
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
        """What tests call it."""
        return f"{self.function.partition('.')[0]}-{self.measure.__name__}"

    @property
    def kind(self) -> str:
        """The severity, and whether the library says so itself."""
        return f"{self.severity}, documented" if self.documented else str(self.severity)

    def look(self) -> Evidence:
        """Measure it now. Warnings are not printed, and what raises does not hold.

        An implementation that refuses the input, or that is gone, no longer has the fault: no exception may end an
        audit because a library improved.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return self.measure()
            except Exception as error:  # noqa: BLE001  # whatever a later version of the library raises
                message = str(error).partition("\n")[0]
                return Evidence(f"the call now raises {type(error).__name__}: {message}", holds=False)


def finding(
    function: str, *, claim: str, source: str, severity: Severity, losslab: str, documented: bool = False
) -> Callable[[Callable[[], Evidence]], Finding]:
    """Make a Finding of a function that measures; its docstring is the fault."""

    def make(measure: Callable[[], Evidence]) -> Finding:
        fault = (measure.__doc__ or "").strip()
        return Finding(function, fault, claim, source, severity, losslab, documented, measure)

    return make


def status(evidence: Evidence) -> str:
    """Whether the finding holds, in words."""
    return "holds" if evidence.holds else "fixed in the installed version"
