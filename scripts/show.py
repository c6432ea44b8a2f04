"""The card of a loss, and its figure: `python scripts/show.py loss=focal`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from losslab.cli import show

if __name__ == "__main__":
    show()
