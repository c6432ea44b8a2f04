"""Run the experiments of a documentation page and write it: `python scripts/pages PAGE [NAME ...]`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the tensors here are tiny
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]

from pages import atlas, choosing_guide, lessons
from pages.experiments import run_experiments
from pages.verification import choose, read_all, verify

PAGES = {page.name: page for page in (atlas.PAGE, choosing_guide.PAGE, lessons.PAGE)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all or some experiments of a page and write the page, or verify recorded results."""
    parser = argparse.ArgumentParser(
        prog="python scripts/pages", description="Run the experiments of a documentation page, and write the page."
    )
    parser.add_argument("page", nargs="?", choices=PAGES, help="page to write: docs/PAGE.md")
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments to run (default: all)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--text", action="store_true", help="run nothing: write the page from the recorded results")
    mode.add_argument("--resume", action="store_true", help="run only experiments whose recorded results are stale")
    mode.add_argument(
        "--stale", action="store_true", help="run nothing: list the stale results, and why; without PAGE, of all pages"
    )
    mode.add_argument(
        "--verify",
        action="store_true",
        help="list the stale results, and repeat the named experiments, or else the fastest that confirm all stale "
        "results; equal numbers make results current; without PAGE, of all pages",
    )
    options = parser.parse_intermixed_args(arguments)  # NAME may follow --resume
    if options.page is None and not (options.stale or options.verify):
        parser.error(f"name a page: {', '.join(PAGES)}")
    if options.text and options.names:
        parser.error("--text runs nothing: leave out names")
    pages = [PAGES[options.page]] if options.page else list(PAGES.values())
    known = [experiment.name for page in pages for experiment in page.experiments]
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"there is no experiment {', '.join(unknown)} on this page; there are {', '.join(known)}")
    if options.stale or options.verify:
        _verify_or_list(options)
        return
    (page,), docs = pages, ROOT / "docs"
    chosen = options.names or known
    if options.resume:
        stale = {name for name, each in page.staleness(docs).items() if each.reasons}
        chosen = [name for name in chosen if name in stale]
    if not options.text:
        run_experiments([each for each in page.experiments if each.name in chosen], docs / page.name)
    page.write(docs)
    print(f"wrote {docs / page.name}.md")


def _verify_or_list(options: argparse.Namespace) -> None:
    """List the stale results, and with --verify repeat experiments. Exit with code 1 if results remain stale."""
    docs = ROOT / "docs"
    recorded = read_all(list(PAGES.values()), docs)
    shown = [each for each in recorded if options.page in {None, each.page.name}]
    named = [each for each in shown if each.experiment.name in options.names]
    stale = [each for each in named or shown if each.staleness.reasons]
    for each in stale:
        print(f"{each.name}: {'; '.join(each.staleness.reasons)}")
    if not stale:
        print("all results are current")
    to_run = [each.name for each in stale if each.staleness.needs_run]
    if options.verify:
        chosen = [each for each in named if not each.staleness.needs_run] or choose(shown)
        if not verify(chosen, recorded, docs):
            sys.exit("numbers differ: run the stale experiments again, with python scripts/pages PAGE --resume")
    if to_run:
        sys.exit(f"must be run: {', '.join(f'python scripts/pages {name}' for name in to_run)}")


if __name__ == "__main__":
    main()
