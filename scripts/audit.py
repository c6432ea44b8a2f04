"""Audit public implementations of losses: `python scripts/audit.py [LIBRARY ...]`."""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the tensors here are tiny
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from audits import page, terminal
from audits.libraries import LIBRARIES, audit
from rich.console import Console


def main() -> None:
    """Measure all findings on the installed versions, and print them; the exit code is always 0."""
    parser = argparse.ArgumentParser(
        description="Measure faults of public implementations of losses on the installed versions."
    )
    parser.add_argument("libraries", nargs="*", metavar="LIBRARY", help=f"{', '.join(LIBRARIES)} (default: all)")
    parser.add_argument("--markdown", action="store_true", help="print the content of docs/audit.md")
    options = parser.parse_args()
    unknown = [name for name in options.libraries if name not in LIBRARIES]
    if unknown:
        parser.error(f"no library {', '.join(unknown)}: choose from {', '.join(LIBRARIES)}")
    console = Console(highlight=False)
    audits = []
    for name in options.libraries or LIBRARIES:
        audits.append(audit(name))
        if not options.markdown:
            terminal.show(audits[-1], console)
            console.print()
    if options.markdown:
        print(page.page(audits), end="")
    else:
        console.print(terminal.summary(audits))


if __name__ == "__main__":
    main()
