"""The hostile files of tests/security, each a test of its own, as pytest counts them."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from soak.commands import ROOT
from soak.record import Case, Found


def cases(count: int) -> list[Case]:
    """Configurations, checkpoints and archives; all of them, or none."""
    names = sorted(path.stem.removeprefix("test_") for path in (ROOT / "tests" / "security").glob("test_*.py"))
    return [Case("hostile", name) for name in names] if count else []


def run(case: Case, folder: Path) -> Found:
    """Run the tests of one kind of file → those that failed."""
    report = folder / f"hostile-{case.name}.xml"
    test = ROOT / "tests" / "security" / f"test_{case.name}.py"
    subprocess.run([sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", str(test)], cwd=ROOT, check=False)
    tests = list(ET.parse(report).iter("testcase"))  # noqa: S314 -- written a moment ago
    failures = [
        str(each.get("name")) for each in tests if each.find("failure") is not None or each.find("error") is not None
    ]
    return Found(len(tests), failures)
