"""The presets that teach, run and shown: `python scripts/lessons.py [NAME ...]` renews docs/lessons.md."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: its tensors here are tiny
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]

from campaigns import campaign
from curriculum import page
from curriculum.lessons import LESSONS
from curriculum.standings import results_of

DOCS = ROOT / "docs"


def main() -> None:
    """Run the presets of all lessons, or of those that are named, and rewrite the page, its tables and figures."""
    names = [lesson.name for lesson in LESSONS]
    parser = argparse.ArgumentParser(description="Run what docs/lessons.md shows, and write it anew.")
    parser.add_argument("lessons", nargs="*", metavar="NAME", help=f"{', '.join(names)} (default: all)")
    parser.add_argument("--page", action="store_true", help="run nothing: rewrite the page from the last runs' numbers")
    options = parser.parse_args()
    unknown = set(options.lessons) - set(names)
    if unknown or (options.page and options.lessons):
        parser.error(f"no lesson {', '.join(unknown)}" if unknown else "--page runs nothing: name no lessons")
    if not options.page:
        chosen = [lesson for lesson in LESSONS if lesson.name in (options.lessons or names)]
        campaign.conduct(chosen, DOCS / "lessons", partial(results_of, curves=DOCS / "lessons"))
    page.write(DOCS)
    print(f"wrote {DOCS / 'lessons.md'}")


if __name__ == "__main__":
    main()
