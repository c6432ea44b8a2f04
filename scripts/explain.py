"""Draw why runs went as they did: `python scripts/explain.py RUN_FOLDER ...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from losslab.cli import explain

if __name__ == "__main__":
    explain()
