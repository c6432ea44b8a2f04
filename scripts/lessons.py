"""The presets that teach, run and shown: `python scripts/lessons.py [NAME ...]` renews docs/lessons.md."""

import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: its tensors here are tiny
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]

from campaigns import campaign, command
from curriculum import page
from curriculum.lessons import LESSONS
from curriculum.standings import results_of

DOCS = ROOT / "docs"


def main() -> None:
    """Run the presets of all lessons, or of those that are named, and rewrite the page, its tables and figures."""
    chosen = command.asked("docs/lessons.md", LESSONS, "lesson", "a quarter of an hour")
    if chosen:
        campaign.conduct(chosen, DOCS / "lessons", partial(results_of, curves=DOCS / "lessons"))
    page.write(DOCS)
    print(f"wrote {DOCS / 'lessons.md'}")


if __name__ == "__main__":
    main()
