"""The losses of tiny runs, bit for bit: `python scripts/golden.py` compares them with tests/golden.

A run for each loss of conf/loss, and one with convolutions: six steps in two epochs, whole, and resumed in the middle
of the second epoch. The same versions, processor and number of threads must give the same bits; elsewhere the losses
must agree to a tolerance. `--write` renews the file of this machine, and its diff says what has changed.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and as in the tests
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]

from goldens import bits, runs


def main() -> None:
    """Make the runs; compare them, or with --write have them be the golden ones."""
    parser = argparse.ArgumentParser(description="Compare the losses of tiny runs with tests/golden.")
    parser.add_argument("--write", action="store_true", help="renew the file of this machine")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = dict(runs.whole(Path(place), runs.names()))
    if options.write:
        print(f"wrote {bits.write(found).relative_to(ROOT)}: look at its diff")
        return
    golden, exact = bits.read()
    differing = {name: said for name in found if (said := bits.differences(found[name], golden[name], exact=exact))}
    for name, said in differing.items():
        print(f"{name}: {'; '.join(said)}")
    measure = "" if exact else f" by more than {bits.TOLERANCE:g}: another machine made the golden ones"
    print(f"{len(differing)} of {len(found)} runs differ{measure}")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
