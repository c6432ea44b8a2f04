"""Look at a set-up without training it: `python scripts/check.py model=... data=... loss=...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from losslab.cli import check

if __name__ == "__main__":
    check()
