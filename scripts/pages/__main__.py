"""Run the experiments of a documentation page and write it: `python scripts/pages choosing|lessons [NAME ...]`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the tensors here are tiny
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]

from pages import choosing_guide, lessons
from pages.experiments import find_stale, read_records, run_experiments

PAGES = {page.name: page for page in (choosing_guide.PAGE, lessons.PAGE)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all or some experiments of a page, and write the page with its figures."""
    parser = argparse.ArgumentParser(description="Run the experiments of a documentation page, and write the page.")
    parser.add_argument("page", choices=PAGES, help="page to write: docs/PAGE.md")
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments to run (default: all)")
    parser.add_argument("--text", action="store_true", help="run nothing: write the page from the recorded results")
    parser.add_argument(
        "--resume", action="store_true", help="run only experiments without results for their current definition"
    )
    options = parser.parse_args(arguments)
    page, docs = PAGES[options.page], ROOT / "docs"
    names = [experiment.name for experiment in page.experiments]
    unknown = set(options.names) - set(names)
    if unknown:
        parser.error(f"there is no experiment {', '.join(unknown)} on this page; there are {', '.join(names)}")
    if options.text and (options.names or options.resume):
        parser.error("--text runs nothing: leave out names and --resume")
    chosen = options.names or names
    if options.resume:
        stale = find_stale(page.experiments, read_records(docs / page.name))
        chosen = [name for name in chosen if name in stale]
    if not options.text:
        run_experiments([each for each in page.experiments if each.name in chosen], docs / page.name)
    page.write(docs)
    print(f"wrote {docs / page.name}.md")


if __name__ == "__main__":
    main()
