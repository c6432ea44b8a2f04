"""Which loss, shown on this project's data: `python scripts/choosing.py [ROW ...]` renews docs/choosing.md."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: its tensors here are tiny
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]

from campaigns import campaign, command
from choosings import figure, gradients, page
from choosings.results import results_of
from choosings.rows import EVERYTHING

DOCS = ROOT / "docs"


def main() -> None:
    """Run the commands of all rows, or of those that are named, and rewrite the page and its figure."""
    chosen = command.asked("docs/choosing.md", EVERYTHING, "row", "some ten minutes")
    if chosen:
        campaign.conduct(chosen, DOCS / "choosing", results_of)
    figure.save(gradients.measure(), DOCS / "figures")
    page.write(DOCS)
    print(f"wrote {DOCS / 'choosing.md'}")


if __name__ == "__main__":
    main()
