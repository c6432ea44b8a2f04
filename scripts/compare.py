"""Which loss won, and is the difference real? Run `python scripts/compare.py FOLDERS...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from losslab.cli import compare

if __name__ == "__main__":
    compare()
