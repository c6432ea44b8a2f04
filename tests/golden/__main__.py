"""Compare tiny runs with the golden files, or record them: `python -m golden [--write]` in tests/.

There is a run for each loss of conf/loss, and one with convolutions: six steps in two epochs. With the same versions,
processor and number of threads every bit must be the same; otherwise the losses must agree to a tolerance. After
`--write`, `git diff` shows what has changed.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, as in the tests

from golden import bits, runs


def main() -> None:
    """Train the runs, then compare or record them; the exit code is 1 if some differ."""
    parser = argparse.ArgumentParser(description="Compare the losses of tiny runs with the files in tests/golden.")
    parser.add_argument("--write", action="store_true", help="record the file of this machine")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = dict(runs.train_all(Path(folder), runs.names()))
    if options.write:
        print(f"wrote {bits.write(found)}: see git diff")
        return
    golden, exact = bits.read()
    differing = {name: texts for name in found if (texts := bits.differences(found[name], golden[name], exact=exact))}
    for name, texts in differing.items():
        print(f"{name}: {'; '.join(texts)}")
    tolerance = "" if exact else f" by more than {bits.TOLERANCE:g} (the golden file is of another machine)"
    print(f"{len(differing)} of {len(found)} runs differ{tolerance}")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
