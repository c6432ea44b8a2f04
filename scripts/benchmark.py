"""Time losslab and comparable programs: `python scripts/benchmark.py [SECTION ...]`, on an idle machine."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))
sys.path.insert(0, str(ROOT / "scripts"))  # also for spawned processes
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # for all programs, since commands of losslab set it

from benchmarks import compare, deterministic, fused, images, linear, page

SECTIONS: dict[str, Callable[[int], str]] = {
    "linear_process": linear.process,
    "linear_inprocess": linear.in_process,
    "linear_length": linear.length,
    "sweep": linear.sweep,
    "fused": fused.cpu,
    "compare": compare.thousand_runs,
    "cnn": images.cnn,
    "augment": images.augment,
    "callbacks": images.callbacks,
    "gpu": images.gpu,
    "fused_gpu": fused.gpu,
    "deterministic": deterministic.cost,
}


def main() -> None:
    """Run and print the sections; --write also replaces them in docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description="Time losslab and comparable programs alternately.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="number of runs of each program (default: 5)")
    parser.add_argument("--write", action="store_true", help="also replace these sections in docs/benchmarks.md")
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown or options.rounds < 1:
        parser.error(f"no section {', '.join(unknown)}" if unknown else "--rounds must be 1 or more")
    for name in options.sections or SECTIONS:
        text = SECTIONS[name](options.rounds)
        print(text, end="\n\n")
        if options.write:
            page.write({name: text}, list(SECTIONS))


if __name__ == "__main__":
    main()
