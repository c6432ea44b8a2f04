"""The hostile files of tests/security, each counted as one test."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from soak.commands import ROOT
from soak.record import Case, CaseResult


def cases(count: int) -> list[Case]:
    """One case for each module of tests; none if count is 0."""
    names = sorted(path.stem.removeprefix("test_") for path in (ROOT / "tests" / "security").glob("test_*.py"))
    return [Case("hostile", name) for name in names] if count else []


def run(case: Case, folder: Path) -> CaseResult:
    """Run the tests of one module → those that failed."""
    report = folder / f"hostile-{case.name}.xml"
    test = ROOT / "tests" / "security" / f"test_{case.name}.py"
    subprocess.run([sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", str(test)], cwd=ROOT, check=False)
    tests = list(ET.parse(report).iter("testcase"))  # noqa: S314 -- written by pytest
    failures = [
        str(each.get("name")) for each in tests if each.find("failure") is not None or each.find("error") is not None
    ]
    return CaseResult(len(tests), failures)
