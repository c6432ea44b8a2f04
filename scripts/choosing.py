"""Which loss, shown on this project's data: `python scripts/choosing.py [ROW ...]` renews docs/choosing.md."""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: its tensors here are tiny
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]

from campaigns import campaign
from choosings import figure, gradients, page
from choosings.results import results_of
from choosings.rows import EVERYTHING

DOCS = ROOT / "docs"


def main() -> None:
    """Run the commands of all rows, or of those that are named, and rewrite the page and its figure."""
    names = [row.name for row in EVERYTHING]
    parser = argparse.ArgumentParser(description="Run what docs/choosing.md shows, and write it anew.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(names)} (default: all, some ten minutes)")
    parser.add_argument("--page", action="store_true", help="run nothing: rewrite the page from the last runs' numbers")
    options = parser.parse_args()
    unknown = set(options.rows) - set(names)
    if unknown or (options.page and options.rows):
        parser.error(f"no row {', '.join(unknown)}" if unknown else "--page runs nothing: name no rows")
    if not options.page:
        chosen = [row for row in EVERYTHING if row.name in (options.rows or names)]
        campaign.conduct(chosen, DOCS / "choosing", results_of)
    figure.save(gradients.measure(), DOCS / "figures")
    page.write(DOCS)
    print(f"wrote {DOCS / 'choosing.md'}")


if __name__ == "__main__":
    main()
