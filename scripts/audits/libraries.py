"""Which libraries are audited, in which version they are installed, and what was found in them."""

import importlib
import importlib.metadata
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from audits.finding import Evidence, Finding, Severity

# A library's name on the command line: its distribution, and the modules beside this one that hold its findings.
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
    """What was found in one library; without a version, why it was skipped."""

    library: str
    version: str
    results: list[tuple[Finding, Evidence]]
    skipped: str = ""

    @property
    def heading(self) -> str:
        """The library, its version, and how many findings hold."""
        holding = sum(evidence.holds for _, evidence in self.results)
        return f"{self.library} {self.version}: {holding} of {len(self.results)} findings hold"


def findings(library: str) -> list[Finding]:
    """The findings in a library, the most relevant first.

    Raises:
        ImportError: it is not installed, or does not work.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modules = [importlib.import_module(f"audits.{module}") for module in LIBRARIES[library][1]]
    return [one for module in modules for one in module.FINDINGS]


def version(library: str) -> str:
    """The installed version, empty where there is none."""
    try:
        return importlib.metadata.version(LIBRARIES[library][0])
    except importlib.metadata.PackageNotFoundError:
        return ""


def audit(library: str) -> Audit:
    """Measure every finding in a library, or say why it is skipped."""
    installed = version(library)
    if not installed:
        return Audit(library, "", [], f"{library} is not installed: skipped")
    try:
        known = findings(library)
    except ImportError as error:
        return Audit(library, "", [], f"{library} {installed} cannot be imported: skipped ({error})")
    return Audit(library, installed, [(one, one.look()) for one in known])


def count(audits: Iterable[Audit]) -> dict[str, int]:
    """How many findings of each severity hold, the worst first; those that do not hold count as fixed."""
    counts = dict.fromkeys([*map(str, Severity), "fixed"], 0)
    for one in audits:
        for found, evidence in one.results:
            counts[str(found.severity) if evidence.holds else "fixed"] += 1
    return counts
