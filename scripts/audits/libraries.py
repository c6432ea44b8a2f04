"""The audited libraries, their installed versions, and the audit of one library."""

import importlib
import importlib.metadata
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from audits.finding import Evidence, Finding, Severity

# Name on the command line → (distribution, modules of this package that contain its findings).
LIBRARIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "torch": ("torch", ("torch_numerics", "torch_definitions", "torch_misuse", "torch_precision")),
    "torchvision": ("torchvision", ("torchvision",)),
    "timm": ("timm", ("timm_numerics", "timm_definitions")),
    "kornia": ("kornia", ("kornia",)),
    "pytorch_metric_learning": ("pytorch-metric-learning", ("metric_learning_numerics", "metric_learning_definitions")),
    "sklearn": ("scikit-learn", ("sklearn",)),
}


@dataclass(frozen=True)
class Audit:
    """Findings in one library with their evidence, or the reason why it was skipped."""

    library: str
    version: str
    results: list[tuple[Finding, Evidence]]
    skipped: str = ""

    @property
    def heading(self) -> str:
        """Heading with library, version and number of findings that hold."""
        holding = sum(evidence.holds for _, evidence in self.results)
        return f"{self.library} {self.version}: {holding} of {len(self.results)} findings hold"


def findings(library: str) -> list[Finding]:
    """Load the findings in a library, the most relevant first.

    Raises:
        ImportError: the library is not installed or cannot be imported.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modules = [importlib.import_module(f"audits.{module}") for module in LIBRARIES[library][1]]
    return [one for module in modules for one in module.FINDINGS]


def version(library: str) -> str:
    """Installed version of a library; "" if it is not installed."""
    try:
        return importlib.metadata.version(LIBRARIES[library][0])
    except importlib.metadata.PackageNotFoundError:
        return ""


def audit(library: str) -> Audit:
    """Measure all findings in a library, or skip it if it is not installed."""
    installed = version(library)
    if not installed:
        return Audit(library, "", [], f"{library} is not installed: skipped")
    try:
        known = findings(library)
    except ImportError as error:
        return Audit(library, "", [], f"{library} {installed} cannot be imported: skipped ({error})")
    return Audit(library, installed, [(one, one.check()) for one in known])


def count(audits: Iterable[Audit]) -> dict[str, int]:
    """Count the findings that hold by severity, the worst first; findings that do not hold count as "fixed"."""
    counts = dict.fromkeys([*map(str, Severity), "fixed"], 0)
    for one in audits:
        for found, evidence in one.results:
            counts[str(found.severity) if evidence.holds else "fixed"] += 1
    return counts
